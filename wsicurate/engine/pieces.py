"""What a run that fills a store is made of: settings, surveys, tasks, and how far a slide is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from wsicurate._version import __version__
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.records import SlideRecord, StoreRecord, fingerprint_of
from wsicurate.store.verify import is_sound


class FillingConfig(Protocol):
    """Settings that every verb has which fills a store; see `TileConfig`."""

    @property
    def workers(self) -> int | None:
        """Processes; None means one per usable core."""
        ...

    @property
    def slide_timeout(self) -> float | None:
        """Seconds of work after which a slide is given up."""
        ...

    @property
    def overwrite(self) -> bool:
        """Whether slides are redone that the store holds otherwise."""
        ...

    @property
    def dry_run(self) -> bool:
        """Whether nothing is written."""
        ...


class Surveyed(Protocol):
    """A slide, looked at and planned; or found in the store as it should be."""

    @property
    def record(self) -> SlideRecord:
        """Attributes for the store; counts and hash are still to come unless ``is_committed``."""
        ...

    @property
    def is_committed(self) -> bool:
        """Whether the store holds these patches already; ``record`` is theirs, with today's words."""
        ...

    @property
    def patches(self) -> int:
        """Planned patches."""
        ...

    @property
    def bytes_per_patch(self) -> float:
        """Estimated in a dry run, else 0."""
        ...


V = TypeVar("V", bound=Surveyed)
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[R]):
    """A task for a worker: a plain function of one picklable argument, and the argument."""

    function: Callable[[Any], R]
    task: Any

    @classmethod
    def of(cls, function: Callable[[T], R], task: T) -> Call[R]:
        """The call, the argument's type checked."""
        return cls(function, task)


@dataclass(frozen=True)
class Piece(Generic[R]):
    """A segment of a slide's work.

    Attributes:
        key: where the segment goes.
        patches: how many it is about.
        call: makes it.
    """

    key: str
    patches: int
    call: Call[R]


@dataclass(eq=False)
class Filling(Generic[V, R]):
    """How far a slide is.

    Attributes:
        committed: its record, while a survey compares the slide with it.
        survey: what the survey found.
        segments: keys of all its segments.
        missing: how many of them are not there yet.
        results: what the workers said of those that were cut by this run.
    """

    committed: SlideRecord | None
    survey: V | None = None
    segments: Sequence[str] = ()
    missing: int = 0
    results: list[R] = field(default_factory=list)

    @property
    def surveyed(self) -> V:
        """What the survey found.

        Raises:
            ValueError: if it is not back yet.
        """
        if self.survey is None:
            raise ValueError("a slide was sent on before its survey was complete")
        return self.survey


@dataclass(frozen=True)
class SoundTask:
    """Find out whether the store holds a slide as this version of wsicurate made it.

    Attributes:
        store: where.
        key: of the slide's group.
        store_record: the store's patch size and codec.
        committed: the slide's record.
    """

    store: ByteStore
    key: str
    store_record: StoreRecord
    committed: SlideRecord


def is_as_made(task: SoundTask) -> bool:
    """Whether all bytes of a slide are those that this version of wsicurate wrote."""
    return task.committed.version == __version__ and is_sound(task.store, task.key, task.store_record)


def made_by(record: SlideRecord) -> str:
    """The fingerprint that is in the names of a slide's unfinished work: settings, file, resolution and reader.

    What another reader made is made again: where a level is no whole reduction, readers interpolate differently.
    """
    return fingerprint_of({"slide": record.fingerprint, "reader": record.reader}, {})
