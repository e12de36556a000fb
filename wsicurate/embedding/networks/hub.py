"""The Hugging Face hub: asked where it answers; where it does not, only the files that are here already count."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from wsicurate.embedding.presets import Preset
from wsicurate.errors import EncoderUnavailableError

#: How long to wait for the hub's answer before only files that were downloaded before are used, seconds.
_PATIENCE_S = 3.0

#: One at a time: the client's setting is that of the whole process.
_offline_lock = threading.RLock()

#: Errors of this machine's own files, not of the network.
_LOCAL = {
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO") if hasattr(errno, name)
}

#: Names of the exceptions, of several libraries, that mean that the hub did not give the weights.
_UNREACHABLE = {
    "ConnectError",
    "ConnectTimeout",
    "ConnectionError",
    "EntryNotFoundError",
    "GatedRepoError",
    "HTTPError",
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ProxyError",
    "ReadTimeout",
    "RepositoryNotFoundError",
    "URLError",
}


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Within it, the hub's client asks the network where the hub answers, and its cache alone where it does not.

    Without this, a machine without a connection tries for a minute before it says so.
    """
    from huggingface_hub import constants

    with _offline_lock:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def require_weights(preset: Preset) -> None:
    """Say at once that weights cannot be had: before torch and timm are imported, and a network is built in vain.

    Raises:
        EncoderUnavailableError: if the hub does not answer and holds the only copy.
    """
    repository = preset.place if preset.kind in ("hf-hub", "transformers") else _repository_of(preset.url)
    if preset.kind not in ("hf-hub", "transformers", "timm") or not repository:
        return
    if preset.kind == "transformers" and importlib.util.find_spec("transformers") is None:
        return  # that is said first
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if folder.is_dir() or (not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)):
        return
    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    raise EncoderUnavailableError(unreachable(preset, f"{host} does not answer"))


def _repository_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path.strip("/") if parts.hostname == "huggingface.co" else ""


def is_unreachable(error: BaseException | None) -> bool:
    """Whether loading failed because the hub did not give the weights, or they could not be kept here."""
    while error is not None:
        if {kind.__name__ for kind in type(error).__mro__} & _UNREACHABLE or isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False


def why_unreachable(preset: Preset, error: BaseException) -> str:
    """What to do about weights that cannot be had, by what loading them raised."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _LOCAL:
            where = f": {found.filename}" if found.filename else ""
            return f"{preset.name}: its weights cannot be kept or read on this machine: {found.strerror}{where}"
        found = found.__cause__ or found.__context__
    gated = "gated" in type(error).__name__.lower() or "401" in str(error) or "403" in str(error)
    return unreachable(preset, f"{type(error).__name__}: {shortened(str(error))}", gated=gated)


def unreachable(preset: Preset, reason: str, *, gated: bool = False) -> str:
    """What to do about weights that the hub does not give."""
    page = preset.url or f"https://huggingface.co/{'timm/' if preset.kind == 'timm' else ''}{preset.place}"
    what = "all files of" if preset.kind == "transformers" else "them from"
    steps = (
        f"its weights are gated: accept the terms at {page}, then log in with: hf auth login (huggingface-cli login)"
        if gated or preset.gated
        else "its weights could not be reached: check the connection"
    )
    place = "FOLDER" if preset.kind == "transformers" else "FILE"
    return (
        f"{preset.name}: {steps}. Without a connection, download {what} {page} elsewhere and run again with "
        f"--weights {place}, or take an encoder without weights: stain-texture or filter-bank ({reason})"
    )


def shortened(text: str, limit: int = 300) -> str:
    """A message on one line, of a bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _answers(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # behind a proxy only a request can tell
    address = urlsplit(endpoint)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE_S).close()
    except (OSError, ValueError):
        return False
    return True
