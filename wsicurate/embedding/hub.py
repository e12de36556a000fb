"""The Hugging Face hub: reached where it can be, told from the files that are here already where it cannot."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

#: How long to wait for the hub's answer before only files that were downloaded before are used, seconds.
_PATIENCE_S = 5.0


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Within it, the hub's client asks the network where the hub answers, and its cache alone where it does not.

    Without this, a machine without a connection tries for a minute before it says so.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # behind a proxy only a request can tell
    address = urlsplit(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_PATIENCE_S).close()
    except OSError:
        return False
    return True
