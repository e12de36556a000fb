"""Networks saved as TorchScript, such as the copy detectors of SSCD (Pizzi et al. 2022, arXiv 2202.10261).

A TorchScript file is a program. It is read as data all the same: it is opened only where nothing in it runs while it
is opened, it is run only where every operator it can reach is one of `torchscript_operators`, and both are tried in a
process of its own first, with limits to its time and memory (ADR 34).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsicurate.embedding.networks.torch_archives import Archive
from wsicurate.embedding.networks.torchscript_operators import is_allowed
from wsicurate.embedding.presets import Preset
from wsicurate.embedding.weight_files import weight_file
from wsicurate.errors import EncoderError, EncoderUnavailableError
from wsicurate.validation import expanded

#: How long opening a file and running it on one image may take: this, and a second for every ``_BYTES_PER_S``.
TRIAL_S = 120.0
_BYTES_PER_S = 20e6

#: Memory that the trial may take beyond what torch takes and four times the file.
_TRIAL_BYTES = 8 * 2**30

#: Texts of an archive's code that run, or could, while it is opened, or that no encoder has a use for.
_RUN_AT_OPENING = re.compile(r"\b(__setstate__|__getstate__|save|from_file)\b")

#: Types of constants of a graph.
_CONSTANTS = frozenset(
    f"{name}Type"
    for name in (
        *("Bool", "Int", "Float", "Complex", "Number", "String", "None", "List", "Tuple", "Dict", "Enum", "Function"),
        *("Tensor", "DeviceObj", "Layout", "ScalarType"),
    )
)

#: What the trip count of ``while`` is: as often as its condition holds.
_ENDLESS = 2**63 - 1

_TRIAL = "from wsicurate.embedding.networks.torchscript import main; main()"


def load_torchscript(preset: Preset) -> tuple[nn.Module, Preset]:
    """Load a TorchScript file.

    Returns:
        The network, and the preset as it was.

    Raises:
        EncoderUnavailableError: if there is no file.
        EncoderError: if it is no TorchScript, holds what no encoder needs, takes too long or too much memory, or
            another pooling than the model's own is asked for.
    """
    path = expanded(Path(preset.place))
    if not path.is_file():
        raise EncoderUnavailableError(f"{preset.name}: there is no file {path}; check the path")
    if preset.pooling != "model":
        raise EncoderError(f"{preset.name}: TorchScript gives one vector its own way; leave --pooling out")
    if weight_file(path) != "torchscript":
        raise EncoderError(
            f"{path} is no TorchScript file that can be read: it has no code; save it with torch.jit.save"
        )
    try_in_process(path, preset.input_px or 224)
    return open_checked(path), preset


def try_in_process(path: Path, input_px: int) -> None:
    """Open a file, and run it on one image, in a process with limits.

    Args:
        path: the file.
        input_px: edge of the image.

    Raises:
        EncoderError: if that fails, takes too long, or ends the process. A network that runs and does not take images
            of this size is let pass: whoever asks it for vectors says more.
    """
    limit_s = TRIAL_S + path.stat().st_size / _BYTES_PER_S
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _TRIAL, str(path), str(input_px)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EncoderError(
            f"{path} was still running on its first image after {limit_s:.0f} s; it may never end, and is not used"
        ) from None
    try:
        fault = json.loads(ended.stdout.decode().strip().splitlines()[-1])["fault"]
    except (ValueError, IndexError, KeyError, TypeError):
        raise EncoderError(
            f"{path}: the process that tried it ended with status {ended.returncode}; it is damaged, or made to do harm"
        ) from None
    if fault:
        raise EncoderError(str(fault))


def main() -> None:
    """In a process of its own: open and run a file, and print what is wrong with it as JSON."""
    path, input_px = Path(sys.argv[1]), int(sys.argv[2])
    _limit_memory(path)
    fault = ""
    try:
        network = open_checked(path).eval()
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 3, input_px, input_px))
        except Exception as error:  # others are for those to explain who ask for vectors
            if isinstance(error, MemoryError) or "allocate" in str(error):
                raise EncoderError(f"{path} takes too much memory for one image: {_short(error)}") from error
    except EncoderError as error:
        fault = str(error)
    except Exception as error:
        fault = f"{path} cannot be used: {type(error).__name__}: {_short(error)}"
    sys.stdout.write("\n" + json.dumps({"fault": fault}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # whatever the file has left behind


def _limit_memory(path: Path) -> None:
    """Limit this process's memory, where the system can."""
    try:
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = taken + _TRIAL_BYTES + 4 * path.stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def open_checked(path: Path) -> nn.Module:
    """Open a TorchScript file, unless something in it would run at once, or could do anything but compute.

    Returns:
        The network, on the CPU.

    Raises:
        EncoderError: which says what is wrong.
    """
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of formats that old files do not have
            network: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise EncoderError(f"{path} is no TorchScript file that can be read: {_short(error)}") from error
    check_graphs(path, network)
    return network


def check_archive(path: Path) -> None:
    """Refuse an archive in which code would run while it is opened.

    torch runs ``__setstate__`` of the objects that it restores, written in TorchScript or, for the classes of
    extensions (``torch.classes``), in C++. An encoder's archive has neither.

    Raises:
        EncoderError: if there is such code.
    """
    archive = Archive(path)
    archive.check_tensors()
    for name in archive.names:
        if not name.endswith((".py", ".pkl")) or name.endswith(".debug_pkl"):
            continue
        text = archive.read(name).decode("latin-1")
        if name.endswith(".py") and (word := _RUN_AT_OPENING.search(text)):
            raise EncoderError(
                f"{path} holds code with {word[1]!r} (in {name}), which could write files or run while it is opened; "
                "only networks that compute are taken: save the weights alone, and name their --arch"
            )
        if "torch.classes" in text.replace("\n", "."):  # a pickle has lines for a name's parts
            raise EncoderError(
                f"{path} uses classes of an extension of torch (in {name}); only networks that compute are taken: save "
                "the weights alone, and name their --arch"
            )


def check_graphs(path: Path, network: Any) -> None:
    """Refuse a network with an operator that is not known to compute and nothing else, or with a loop without an end.

    Every method of every module is looked at, with all the functions and methods that it calls put in their place.

    Raises:
        EncoderError: which names the operator.
    """
    for name, module in network.named_modules():
        for method in module._c._method_names():
            for node in _nodes(module._c._get_method(method).inlined_graph):
                kind = node.kind()
                where = f"{path}, {'.'.join(filter(None, [name, method]))}"
                if not is_allowed(kind):
                    raise EncoderError(
                        f"{where}: it uses the operator {kind}, which is not among those that only compute; save the "
                        "weights alone, and name their --arch"
                    )
                if kind == "prim::Constant" and node.output().type().kind() not in _CONSTANTS:
                    raise EncoderError(f"{where}: it holds a constant of type {node.output().type().kind()}")
                if kind == "prim::Loop" and next(node.inputs()).toIValue() == _ENDLESS:
                    raise EncoderError(
                        f"{where}: it has a `while` loop, which may never end; write it as `for`, or save the weights "
                        "alone, and name their --arch"
                    )


def _nodes(block: Any) -> Iterator[Any]:
    """All nodes of a graph, those within blocks and subgraphs included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _short(error: BaseException) -> str:
    """The last line of a message; the first of torch's are a trace of C++."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
