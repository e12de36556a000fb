"""Whether the model hub is reached, and which encoders may be fetched from it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

from wsicurate.embedding.presets import all_presets
from wsicurate.steps.examining.finding import Finding

#: How long the hub may take to answer, seconds.
_PATIENCE_S = 5.0


def hub() -> Iterator[Finding]:
    """The hub, the token, and each gated encoder. The token itself is never shown."""
    import huggingface_hub
    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=_PATIENCE_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        yield Finding(
            part="hub",
            state="warning",
            what=f"{constants.ENDPOINT} is not reached: {getattr(error, 'reason', error)}",
            fix="stain-texture, filter-bank and --weights FILE work without; else set HTTPS_PROXY or HF_ENDPOINT",
        )
        return
    token = huggingface_hub.get_token()
    if token is None:
        yield Finding(
            part="hub",
            state="warning",
            what=f"{constants.ENDPOINT} is reached, without a token: gated encoders cannot be fetched",
            fix="run: hf auth login",
        )
        return
    api = huggingface_hub.HfApi(endpoint=constants.ENDPOINT, token=token)
    try:
        name = api.whoami()["name"]
    except Exception as error:  # what the hub's errors are changes with its library
        what = f"the hub does not take the token: {type(error).__name__}"
        yield Finding(part="hub", state="warning", what=what, fix="run: hf auth login")
        return
    yield Finding(part="hub", state="ok", what=f"{constants.ENDPOINT} is reached, logged in as {name}")
    for preset in all_presets().values():
        if preset.gated and preset.kind in ("hf-hub", "transformers"):
            yield _gate(api, preset.name, preset.place)


def _gate(api: object, name: str, repository: str) -> Finding:
    """Whether the token may read a gated encoder."""
    try:
        api.auth_check(repository)  # type: ignore[attr-defined]
    except Exception as error:
        return Finding(
            part="hub",
            state="warning",
            what=f"{name} cannot be fetched: {type(error).__name__}",
            fix=f"accept its terms at https://huggingface.co/{repository}",
        )
    return Finding(part="hub", state="ok", what=f"{name} can be fetched")
