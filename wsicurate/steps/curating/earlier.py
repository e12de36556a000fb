"""A curation of the same name that is there already: whether it stands, or what is other than now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsicurate.errors import ManifestError
from wsicurate.steps.curating.inputs import Inputs, fingerprint_of_record
from wsicurate.store.manifest import read_curation, verify_curation
from wsicurate.store.records import differences


def finished_curation(inputs: Inputs) -> tuple[Mapping[str, Any], list[str]] | None:
    """The record of a curation of the same name, inputs and settings, if there is one, and what to know of it.

    Raises:
        ManifestError: if one of other inputs or settings is in the way.
    """
    config = inputs.config
    if config.overwrite:
        return None
    found = read_curation(inputs.store.bytes, config.name, str(inputs.store.path))
    if found is None:
        return None
    version = (found.run.get("versions") or {}).get("wsicurate", "another version")
    if fingerprint_of_record(found.run) == inputs.fingerprint:
        hashes = inputs.pool.content_hashes()
        if list(verify_curation(inputs.store.bytes, config.name, str(inputs.store.path), hashes)):
            return None
        if version == inputs.version:
            return found.run, []
        return found.run, [
            f"{config.name} was made by wsicurate {version} and stands; this is {inputs.version}, which may choose "
            "otherwise: --overwrite curates anew"
        ]
    changed = differences(found.run["settings"], inputs.settings)
    changed += _changed_inputs(found.run, inputs)
    if version != inputs.version:
        changed.append(f"it was made by wsicurate {version}, this is {inputs.version}")
    raise ManifestError(
        f"{inputs.store.path} has a curation {config.name!r} that was made otherwise: {'; '.join(changed)}. "
        "Give another --name, or --overwrite"
    )


def _changed_inputs(run: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """Which inputs are others than those of a record, in words."""
    now_out, then_out = inputs.left_out, run.get("left_out", {})
    found = [f"{key} does not read back now: {now_out[key]}" for key in now_out if key not in then_out]
    found += [f"{key} was left out then, and reads back now" for key in then_out if key not in now_out]
    if "depends_on" not in run:
        return [*found, "its record does not name what it was made from"]
    then = run["depends_on"]
    changed = [name for name, value in inputs.depends_on.items() if then.get(name) != value]
    if changed and not found:
        found.append(f"its inputs have changed since: {', '.join(changed)}")
    return found
