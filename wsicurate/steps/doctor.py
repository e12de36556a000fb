"""`doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsicurate.steps.examining.finding import Examination, Finding, examined
from wsicurate.validation import require_callables, require_path

_REINSTALL = "run: pip install --force-reinstall wsicurate"


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """What was found.

    Attributes:
        findings: in the order in which they were looked at.
    """

    findings: tuple[Finding, ...]

    @property
    def exit_status(self) -> Literal[0, 1]:
        """1 if there is a fault; warnings are none."""
        return int(any(finding.state == "fault" for finding in self.findings))  # type: ignore[return-value]


def doctor(
    store: str | Path = ".",
    slides: Iterable[str | Path] = (),
    *,
    found: Callable[[Finding], None] = lambda finding: None,
) -> DoctorReport:
    """Look at libraries, readers, codecs, the device, the hub, and the place of a store.

    Nothing is changed but for files in temporary folders, which are removed. A part that breaks is a fault, and the
    others are looked at all the same.

    Args:
        store: where a store lies or is to lie.
        slides: slides and folders of slides: how much room their patches need is estimated.
        found: called with each finding as soon as there is one.

    Raises:
        ConfigError: if an argument is wrong.
    """
    path = require_path("store", store).absolute()
    folders = [require_path("slides", each) for each in ([slides] if isinstance(slides, str | Path) else slides)]
    require_callables(found=found)
    findings = []
    for finding in _findings(path, folders):
        found(finding)
        findings.append(finding)
    return DoctorReport(findings=tuple(findings))


def _findings(store: Path, slides: list[Path]) -> Iterator[Finding]:
    """Every part; what a part needs is imported where it is examined, since imports may break."""

    def libraries() -> Iterable[Finding]:
        from wsicurate.steps.examining.machine import libraries

        return libraries()

    def readers() -> Iterable[Finding]:
        from wsicurate.steps.examining.pixels import readers

        return readers()

    def codecs() -> Iterable[Finding]:
        from wsicurate.steps.examining.pixels import codecs

        return codecs()

    def device() -> Iterable[Finding]:
        from wsicurate.steps.examining.machine import device

        return device()

    def hub() -> Iterable[Finding]:
        from wsicurate.steps.examining.hub import hub

        return hub()

    def disk() -> Iterable[Finding]:
        from wsicurate.steps.examining.place import place

        return place(store, _megabytes(slides, store) if slides else None)

    parts: dict[str, tuple[Examination, str]] = {
        "libraries": (libraries, _REINSTALL),
        "readers": (readers, "run: pip install --force-reinstall openslide-bin openslide-python imagecodecs"),
        "codecs": (codecs, "run: pip install --force-reinstall simplejpeg zstandard"),
        "device": (device, "run: pip install --force-reinstall torch torchvision"),
        "hub": (hub, "run: pip install --force-reinstall huggingface_hub"),
        "disk": (disk, "choose another place for the store"),
    }
    for part, (examination, fix) in parts.items():
        yield from examined(part, examination, fix=fix)


def _megabytes(slides: list[Path], store: Path) -> float:
    """How large the patches of slides would be."""
    from wsicurate.config import TileConfig
    from wsicurate.steps.tile import tile

    report = tile(slides, store, TileConfig(dry_run=True))
    return sum(outcome.megabytes for outcome in report.outcomes)
