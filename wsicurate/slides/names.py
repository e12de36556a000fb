"""A slide's `slide_id`: one safe name, whatever its path is made of."""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote

#: Longer ids are cut and end in a hash: file systems take names of 255 bytes, and the store appends ``@mpp``.
MAX_LENGTH = 200


def safe_name(name: str) -> str:
    """Percent-encode ``name`` (UTF-8) so that it is one path component and one Zarr node name.

    Letters, digits, ``-``, ``.``, ``_`` and ``~`` stay; the result never holds ``/`` or ``@``, never is ``.`` or
    ``..``, and never begins with the ``__`` that Zarr reserves. What is such a name already is returned unchanged, so
    an id read from a store can be given back. A name that would be longer than 200 characters is cut and ends in
    ``~`` and 16 hexadecimal digits of its SHA-256.

    >>> safe_name("cohort/päivä 1.svs")
    'cohort%2Fp%C3%A4iv%C3%A4%201.svs'
    """
    encoded = name if quote(unquote(name), safe="") == name else quote(name, safe="")
    if encoded.startswith("__") or encoded in (".", ".."):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if len(encoded) > MAX_LENGTH:
        digest = hashlib.sha256(encoded.encode()).hexdigest()[:16]
        encoded = f"{encoded[: MAX_LENGTH - 17]}~{digest}"
    return encoded
