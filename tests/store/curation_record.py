"""A record of a curation that has all that it must have."""

from __future__ import annotations

from typing import Any

_ENCODER = {"encoder": "a", "weights_hash": "0", "licence": "CC0-1.0", "terms": ""}

RECORD: dict[str, Any] = {
    "name": "one",
    "fingerprint": "f",
    "settings": {},
    "inputs": {},
    "encoder": _ENCODER,
    "evaluation_encoder": {**_ENCODER, "encoder": "b", "weights_hash": "1"},
    "budget": 5,
    "counts": {"not_drawn": 5, "selected": 5},
    "notes": [],
    "evaluation": None,
    "versions": {},
}
