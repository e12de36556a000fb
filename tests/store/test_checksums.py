from __future__ import annotations

import json

import pytest

from wsicurate.errors import CorruptStoreError
from wsicurate.store.checksums import CHECKSUM, UNSEALED, check_seal, seal

DOCUMENT = json.dumps({"patches": 31, "note": "a", CHECKSUM: UNSEALED}).encode()


def test_every_changed_byte_breaks_the_seal() -> None:
    sealed = seal(DOCUMENT)
    checksum = json.loads(sealed)[CHECKSUM]
    check_seal(sealed, checksum, "here")
    for place in range(len(sealed)):
        damaged = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(CorruptStoreError, match="here was damaged or edited"):
            check_seal(damaged, checksum, "here")


def test_the_value_of_another_document_is_no_seal() -> None:
    sealed = seal(DOCUMENT)
    for checksum in (UNSEALED, None, "", json.loads(seal(DOCUMENT.replace(b"31", b"32")))[CHECKSUM]):
        with pytest.raises(CorruptStoreError):
            check_seal(sealed, checksum, "here")
    with pytest.raises(ValueError, match="no field 'checksum' to seal"):
        seal(b"{}")
