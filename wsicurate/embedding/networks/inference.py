"""Batches of patches through a network: device, precision, normalisation, and the time that the forward pass ran."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsicurate.embedding.networks.exact_float32 import exact_float32
from wsicurate.embedding.networks.models import LoadedModel
from wsicurate.errors import EncoderError, EncoderMemoryError
from wsicurate.pixels.resample import enlarge, resample_area

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]

Patches = NDArray[np.uint8]
Vectors = NDArray[np.float32]

#: Patches per batch on a CPU: fastest from 4 to 16 (ADR 14), and a constant keeps bytes the same.
CPU_BATCH = 16

#: Where the search for a batch size begins on other devices; it is halved until a batch fits.
LARGEST_BATCH = 512

#: A reduced precision is used where its vectors agree with float32's at least this well, as cosine.
LEAST_COSINE = 0.999

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

#: Patches that the precision is tried on.
_PROBE_PATCHES = 4


def choose_device(wanted: str = "auto") -> Device:
    """The device to run on: CUDA, else MPS, else the CPU, unless one is named.

    Raises:
        EncoderError: if the device that is named is not there.
    """
    there: list[Device] = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if wanted == "auto":
        return there[0]
    for device in there:
        if device == wanted:
            return device
    raise EncoderError(f"--device is {wanted!r} and this machine has {', '.join(there)}; choose one of these, or auto")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512_BF16, AMX, or Arm's BF16), where it is twice as fast.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    flags = ""
    if platform.system() == "Linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))


def choose_precision(device: Device, wanted: str = "auto") -> tuple[Precision, str]:
    """The precision to run in, and why.

    ``auto``: bfloat16 where the device computes it in hardware, float16 on CUDA devices without it, else float32.

    Raises:
        EncoderError: if it is none of ``auto``, ``fp32``, ``bf16``, ``fp16``.
    """
    for precision in ("fp32", "bf16", "fp16"):
        if wanted == precision:
            return precision, "asked for"
    if wanted != "auto":
        raise EncoderError(f"--precision is {wanted!r}; choose one of auto, fp32, bf16, fp16")
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the device has bfloat16"
        return "fp16", "the device has no bfloat16"
    if device == "cpu" and cpu_has_bf16():
        return "bf16", "the CPU multiplies bfloat16 in hardware"
    return "fp32", "no faster precision is known to be safe on this device"


@dataclass
class Pending:
    """A batch on its way through the network."""

    vectors: torch.Tensor
    count: int
    seconds: float = 0.0
    events: tuple[Any, Any, Any] | None = None


class Inference:
    """A network on a device, ready for batches.

    Args:
        model: the network.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. What ``auto`` chooses is tried on a few images first, and
            float32 is taken where it does not agree with it.
        compiled: run it through `torch.compile`.

    Attributes:
        device, precision: what was chosen.
        reason: why this precision.
        forward_s: how long the forward pass ran so far, seconds; on a CPU with the normalisation before it.
    """

    def __init__(
        self, model: LoadedModel, *, device: str = "auto", precision: str = "auto", compiled: bool = False
    ) -> None:
        self.model = model
        self.device = choose_device(device)
        self.precision, self.reason = choose_precision(self.device, precision)
        self.forward_s = 0.0
        self.compiled = compiled
        mean = torch.tensor(model.preset.mean, dtype=torch.float32)
        std = torch.tensor(model.preset.std, dtype=torch.float32)
        self._scale = (1 / (255 * std)).to(self.device)
        self._shift = (-mean / std).to(self.device)
        network = model.network.to(self.device)
        if precision == "auto" and self.precision != "fp32":
            network = self._tried(network)
        self._network: nn.Module = network.to(_DTYPES[self.precision])
        if compiled:
            self._network = torch.compile(self._network)  # type: ignore[assignment]

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.model.dim

    def settings(self, batch_size: int) -> dict[str, Any]:
        """What the bytes of vectors depend on besides weights and patches."""
        return {
            "device": self.device,
            "precision": self.precision,
            "batch_size": batch_size,
            "compiled": self.compiled,
        }

    def preprocessing(self) -> dict[str, Any]:
        """What is done to a patch before the network sees it."""
        return preprocessing(self.model)

    def _tried(self, network: nn.Module) -> nn.Module:
        """The network, in the reduced precision unless that does not agree with float32."""
        size = self.model.input_px
        noise = np.random.default_rng(0).integers(0, 256, (_PROBE_PATCHES, 8, 8, 3), dtype=np.uint8)
        images = self._normalised(np.stack([enlarge(patch, size, size) for patch in noise]), torch.float32)
        with torch.inference_mode(), self._float32():
            exact = network(images).float()
            state = {name: value.clone() for name, value in network.state_dict().items()}
            reduced = network.to(_DTYPES[self.precision])(images.to(_DTYPES[self.precision])).float()
        cosine = float(torch.nn.functional.cosine_similarity(exact, reduced).min())
        if cosine >= LEAST_COSINE:
            self.reason += f", and agrees with float32 (cosine {cosine:.5f})"
            return network
        self.reason = f"{self.precision} does not agree with float32 here (cosine {cosine:.5f})"
        self.precision = "fp32"
        network.float()
        network.load_state_dict(state)
        return network

    def _float32(self) -> AbstractContextManager[None]:
        return exact_float32() if self.device == "cuda" else nullcontext()

    def find_batch_size(self, wanted: int | None = None) -> int:
        """How many patches go through the network at once.

        On a CPU a constant; elsewhere the largest power of two, up to `LARGEST_BATCH`, that fits into memory.

        Raises:
            EncoderMemoryError: if not even one patch fits.
        """
        if wanted is not None:
            return wanted
        return CPU_BATCH if self.device == "cpu" else self._largest_that_fits()

    def _largest_that_fits(self) -> int:
        size = LARGEST_BATCH
        blank = np.zeros((1, self.model.input_px, self.model.input_px, 3), dtype=np.uint8)
        before = self.forward_s
        while True:
            try:
                self.finish(self.start(np.repeat(blank, size, axis=0), size))
            except EncoderMemoryError:
                if size == 1:
                    raise
                size //= 2
            else:
                self.forward_s = before
                return size

    def fit(self, patch: Patches) -> Patches:
        """A patch (h, w, 3) at the size that the network sees; as the function `fit`."""
        return fit(patch, self.model.input_px)

    def start(self, images: Patches, batch_size: int | None = None) -> Pending:
        """Send a batch through the network; on CUDA this returns before it is done.

        Args:
            images: uint8, (b, input_px, input_px, 3), RGB.
            batch_size: size of full batches; a compiled network is given the last batch filled up to it.

        Returns:
            What `finish` takes.

        Raises:
            EncoderMemoryError: if it does not fit into memory.
        """
        count = len(images)
        if self.compiled and batch_size is not None and count < batch_size:
            images = np.concatenate([images, np.zeros((batch_size - count, *images.shape[1:]), dtype=np.uint8)])
        try:
            with torch.inference_mode(), self._float32():
                if self.device == "cuda":
                    return self._start_cuda(images, count)
                began = time.perf_counter()
                vectors = self._network(self._normalised(images, _DTYPES[self.precision])).float().cpu()
                return Pending(vectors, count, time.perf_counter() - began)
        except torch.OutOfMemoryError as error:
            raise self._no_memory(count) from error
        except RuntimeError as error:
            if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
                raise self._no_memory(count) from error
            raise

    def _start_cuda(self, images: Patches, count: int) -> Pending:
        first, last, copied = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
        batch = self._normalised(images, _DTYPES[self.precision])
        first.record()
        vectors = self._network(batch).float()
        last.record()
        # Copied on the same stream now: copied when it is asked for, it would wait for the next batch as well.
        on_host = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
        on_host.copy_(vectors, non_blocking=True)
        copied.record()
        return Pending(on_host, count, events=(first, last, copied))

    def finish(self, pending: Pending) -> Vectors:
        """Wait for a batch.

        Returns:
            float32, (b, dim).
        """
        if pending.events is not None:
            first, last, copied = pending.events
            try:
                copied.synchronize()
            except RuntimeError as error:
                if "out of memory" in str(error).lower():
                    raise self._no_memory(pending.count) from error
                raise
            pending.seconds = first.elapsed_time(last) / 1e3
        self.forward_s += pending.seconds
        return np.ascontiguousarray(pending.vectors.numpy()[: pending.count], dtype=np.float32)

    def __call__(self, patches: Patches) -> Vectors:
        """Vectors, float32 (b, dim), of patches, uint8 (b, h, w, 3), in one batch."""
        return self.finish(self.start(np.stack([self.fit(patch) for patch in patches])))

    def _normalised(self, images: Patches, dtype: torch.dtype) -> torch.Tensor:
        """Images (b, 3, h, w) as the network takes them; normalised in float32."""
        batch = torch.from_numpy(np.ascontiguousarray(images))
        if self.device == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True).to(torch.float32)
        return batch.mul_(self._scale).add_(self._shift).to(dtype).permute(0, 3, 1, 2)

    def _no_memory(self, count: int) -> EncoderMemoryError:
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return EncoderMemoryError(
            f"{self.model.preset.name}: {count} patches do not fit into the memory of the {self.device} device; give a "
            "smaller --batch-size, or another --device"
        )


def fit(patch: Patches, size: int) -> Patches:
    """A patch (h, w, 3) as (size, size, 3): shrunk by area, or enlarged bicubically; never cropped."""
    height, width = patch.shape[:2]
    if (height, width) == (size, size):
        return patch
    if height >= size and width >= size:
        return resample_area(patch, size, size)
    return enlarge(patch, size, size)


def preprocessing(model: LoadedModel) -> dict[str, Any]:
    """What is done to a patch before the network sees it, as the store records it."""
    return {
        "input_px": model.input_px,
        "resize": "whole patch; area mean down, bicubic up",
        "mean": list(model.preset.mean or ()),
        "std": list(model.preset.std or ()),
        **({"package": model.preset.package} if model.preset.package else {}),
    }


def identity(model: LoadedModel) -> Mapping[str, Any]:
    """What an embedding's record says of its encoder."""
    return {
        "encoder": model.preset.name,
        "dim": model.dim,
        "weights_hash": model.weights_hash,
        "preprocessing": preprocessing(model),
        "pooling": model.preset.pooling,
        "mpp": model.preset.mpp,
        "licence": model.preset.licence,
        "terms": model.preset.terms,
    }
