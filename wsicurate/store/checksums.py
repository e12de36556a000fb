"""Checksums of what a store writes, so that every byte of it is covered.

Chunks have their CRC-32C (`wsicurate.store.codecs`). JSON documents of ours carry a seal: a field ``checksum``, the
last of its object, with the BLAKE2b-128 of the whole document in which those 32 digits are zeros. It speaks of bytes,
not of meanings: a document that was edited by hand, or written again by another program, does not fit its seal either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from wsicurate.errors import CorruptStoreError
from wsicurate.store.bytestore import Bytes

#: The field, and what stands in it before a document is sealed.
CHECKSUM = "checksum"
UNSEALED = "0" * 32

#: The only version that wrote no checksums into its documents.
UNSEALED_VERSION = "0.1.0"

_FIELD = f'"{CHECKSUM}": "'.encode()


def digest(parts: Iterable[Bytes]) -> str:
    """BLAKE2b-128 of bytes, one part after the other: 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def seal(document: bytes) -> bytes:
    """Fill in the checksum of a JSON document whose last field ``checksum`` holds `UNSEALED`.

    Raises:
        ValueError: if there is no such field.
    """
    start = document.rfind(_FIELD + UNSEALED.encode())
    if start < 0:
        raise ValueError(f"the document has no field {CHECKSUM!r} to seal it with")
    return _with_checksum(document, start, digest([document]))


def check_seal(document: bytes, checksum: object, name: str) -> None:
    """Compare a document with its checksum.

    Args:
        document: as it was read.
        checksum: the value of its field ``checksum``.
        name: of the document, for the message.

    Raises:
        CorruptStoreError: if it is not what was sealed.
    """
    start = document.rfind(_FIELD + str(checksum).encode())
    if start < 0 or digest([_with_checksum(document, start, UNSEALED)]) != checksum:
        raise CorruptStoreError(f"{name} was damaged or edited: its hash is not its checksum")


def _with_checksum(document: bytes, start: int, checksum: str) -> bytes:
    begin = start + len(_FIELD)
    return document[:begin] + checksum.encode() + document[begin + len(UNSEALED) :]
