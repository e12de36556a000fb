"""A slide's `slide_id`: one safe name, whatever its path is made of."""

from __future__ import annotations

import hashlib
import re
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
    return name if _encoded(unquote(name, errors=_ERRORS)) == name else _encoded(name)


#: File names that are no UTF-8 reach Python as surrogates; they stand for single bytes.
_ERRORS = "surrogateescape"


def _encoded(name: str) -> str:
    encoded = quote(name, safe="", errors=_ERRORS)
    if encoded.startswith("__") or encoded in (".", ".."):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if len(encoded) > MAX_LENGTH:
        digest = hashlib.sha256(encoded.encode()).hexdigest()[:16]
        kept = re.sub(r"%.?$", "", encoded[: MAX_LENGTH - 17])  # no half of an escape
        encoded = f"{kept}~{digest}"
    return encoded
