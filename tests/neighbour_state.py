"""What a process has set that libraries share: everything that a library can change behind a program's back."""

from __future__ import annotations

import gc
import importlib
import locale
import logging
import multiprocessing
import os
import pkgutil
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

#: Libraries whose own import may set something up; they are imported before the first look.
LIBRARIES = (
    *("cv2", "faiss", "h5py", "huggingface_hub.constants", "imagecodecs", "numpy", "openslide", "PIL.Image"),
    *("pyarrow.parquet", "pydicom", "pydicom.encaps", "rich.console", "safetensors.torch", "scipy.stats"),
    *("sklearn.linear_model", "threadpoolctl", "timm", "torch", "typer", "zarr", "zstandard", "zarr.registry"),
)


def import_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)


def import_all() -> list[str]:
    """Every module of the package but the command's entry point."""
    import wsicurate

    names = [each.name for each in pkgutil.walk_packages(wsicurate.__path__, "wsicurate.")]
    for name in names:
        if name != "wsicurate.__main__":
            importlib.import_module(name)
    return names


def _flags(module: Any, names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names.split()}


def snapshot() -> dict[str, Any]:
    """Everything, by name; each value can be compared with `==`."""
    import cv2
    import numpy as np
    import threadpoolctl
    import torch
    from huggingface_hub import constants
    from PIL import Image

    backends = torch.backends
    umask = os.umask(0)
    os.umask(umask)
    loggers = {
        "": logging.root,
        **{n: each for n, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)},
    }
    return {
        "OpenCV's threads": cv2.getNumThreads(),
        "OpenCV uses its optimised code": cv2.useOptimized(),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's TF32": (
            backends.cuda.matmul.allow_tf32,
            backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
            getattr(backends.cuda.matmul, "fp32_precision", None),
            getattr(getattr(backends.cudnn, "conv", None), "fp32_precision", None),
        ),
        "torch's determinism": (
            torch.are_deterministic_algorithms_enabled(),
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
        ),
        "torch's gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "torch's defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "torch's random numbers": torch.get_rng_state().numpy().tobytes(),
        "Python's random numbers": random.getstate(),
        "numpy's random numbers": str(np.random.get_state(legacy=False)),  # noqa: NPY002
        "numpy's errors": (np.geterr(), np.geterrcall()),
        "numpy's printing": str(np.get_printoptions()),
        "threads of pools": sorted(
            (pool["user_api"], pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()
        ),
        "Pillow's limit": Image.MAX_IMAGE_PIXELS,
        "the hub's client": {name: value for name, value in vars(constants).items() if name.isupper()},
        "warnings": (list(warnings.filters), warnings.showwarning),
        "loggers": {
            name: (logger.level, list(logger.handlers), list(logger.filters), logger.propagate, logger.disabled)
            for name, logger in loggers.items()
            if logger.level or logger.handlers or logger.filters or logger.disabled or not logger.propagate
        },
        "logging": (logging.root.manager.disable, logging.getLoggerClass(), logging.lastResort),
        "the environment": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, set()),
        "the script": sys.modules["__main__"],
        "how processes start": multiprocessing.get_start_method(allow_none=True),
        "the working directory": Path.cwd(),
        "umask": umask,
        "the locale": locale.setlocale(locale.LC_ALL),
        "Python": (
            *(sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()),
            *(sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, sys.stdout, sys.stderr),
            *(list(sys.path), list(sys.warnoptions), sys.gettrace(), sys.getprofile(), sys.dont_write_bytecode),
        ),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    return [f"{name}: {before[name]!r} -> {after[name]!r}"[:600] for name in before if before[name] != after[name]]
