"""The operators of TorchScript that an encoder may use: arithmetic on tensors, numbers, lists and texts.

A list of what is allowed, not of what is forbidden: operators that write or map files, print, seed, fork, call Python,
or were added to torch since, are all not in it. It covers what timm's and torchvision's classifiers become when they
are scripted or traced. The underscore of in-place variants is taken off before names are looked up.
"""

from __future__ import annotations

_ATEN = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr angle asin asinh atan atan2 atanh baddbmm
    bmm ceil chain_matmul clamp clamp_max clamp_min clip copysign cos cosh cross cumprod cumsum deg2rad det diff div
    divide dot einsum erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide fmax fmin fmod frac hypot
    inner inverse kron ldexp lerp lgamma log log10 log1p log2 logaddexp logaddexp2 logcumsumexp logical_and
    logical_not logical_or logical_xor logit logsumexp matmul matrix_exp matrix_power maximum minimum mm mul
    multiply mv nan_to_num neg negative outer pow positive rad2deg reciprocal remainder round rsqrt rsub sgn sigmoid
    sign signbit sin sinc sinh sqrt square sub subtract tan tanh trapezoid true_divide trunc xlogy

    all allclose amax amin aminmax any argmax argmin argsort bincount count_nonzero cummax cummin dist histc isclose
    isfinite isinf isnan isneginf isposinf kthvalue max mean median min mode msort nanmean nanmedian nanquantile
    nansum norm nuclear_norm prod quantile renorm searchsorted sort std std_mean sum topk trace unique_consecutive
    unique_dim var var_mean

    linalg_cholesky linalg_cross linalg_det linalg_diagonal linalg_eigh linalg_inv linalg_matmul linalg_matrix_norm
    linalg_matrix_power linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_solve linalg_svd linalg_vecdot
    linalg_vector_norm fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift
    fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn view_as_complex view_as_real real imag
    conj resolve_conj complex polar

    eq equal ge greater greater_equal gt le less less_equal lt ne not_equal bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor

    adjoint alias arange as_tensor atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to
    bucketize cat chunk clone column_stack concat concatenate constant_pad_nd contiguous copy diag diag_embed
    diagonal dsplit dstack empty empty_like expand expand_as eye fill flatten flip fliplr flipud full full_like
    gather hsplit hstack index index_add index_copy index_fill index_put index_select item lift_fresh linspace
    logspace masked_fill masked_scatter masked_select meshgrid moveaxis movedim narrow new_empty new_full new_ones
    new_zeros nonzero numel ones ones_like one_hot permute pixel_shuffle pixel_unshuffle put ravel repeat
    repeat_interleave reshape reshape_as roll rot90 scalar_tensor scatter scatter_add scatter_reduce select slice
    split split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor tensor_split tensordot tile
    to transpose tril tril_indices triu triu_indices type_as unbind unflatten unfold unsqueeze vander view view_as
    vsplit vstack where zero zeros zeros_like detach channel_shuffle cartesian_prod cdist combinations
    cosine_similarity pairwise_distance expand_copy argwhere as_strided fill_diagonal isin mH mT matrix_H numpy_T

    _convolution _convolution_mode conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    convolution linear bilinear batch_norm group_norm instance_norm layer_norm native_batch_norm native_group_norm
    native_layer_norm rms_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool1d_with_indices
    max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices celu elu gelu glu hardshrink hardsigmoid
    hardswish hardtanh leaky_relu log_sigmoid log_softmax mish prelu relu relu6 rrelu selu silu softmax softplus
    softshrink threshold alpha_dropout dropout feature_alpha_dropout feature_dropout bernoulli uniform normal
    embedding scaled_dot_product_attention _native_multi_head_attention _transformer_encoder_layer_fwd pad
    reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d im2col col2im grid_sampler grid_sampler_2d
    affine_grid_generator upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    __interpolate

    Bool Complex Float FloatImplicit Int IntImplicit ScalarImplicit Size __and__ __contains__ __derive_index
    __getitem__ __is__ __isnot__ __lshift__ __not__ __or__ __range_length __rshift__ __round_to_zero_floordiv
    __xor__ _set_item _shape_as_tensor _unwrap_optional append clear count dict dim divmod endswith extend find
    floordiv format get get_autocast_dtype insert is_autocast_cpu_enabled is_autocast_enabled is_complex
    is_contiguous is_floating_point is_grad_enabled is_nonzero is_same_size is_scripting items join keys len list
    lower mathremainder modf ord percentFormat pop promote_types radians range remove replace result_type reverse
    setdefault size sorted splitlines startswith str stride strip sym_numel sym_size update upper values warn
"""

_PRIM = """
    Constant ConstantChunk CreateObject DictConstruct GetAttr If ListConstruct ListUnpack Loop NumToTensor
    RaiseException SetAttr StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data
    device dtype isinstance is_cpu is_cuda is_mkldnn is_mps is_nested is_quantized is_sparse layout max min
    rangelist requires_grad tolist type unchecked_cast unchecked_unwrap_optional EnumName EnumValue
    ModuleContainerIndex
"""

#: Names of operators, with their namespace.
ALLOWED = frozenset(f"aten::{name}" for name in _ATEN.split()) | frozenset(f"prim::{name}" for name in _PRIM.split())


def is_allowed(operator: str) -> bool:
    """Whether an encoder may use an operator, such as ``aten::add_`` or ``prim::If``."""
    return operator in ALLOWED or (operator.endswith("_") and operator[:-1] in ALLOWED)
