"""Damage a store in every way, see whether `check` finds it, and follow its advice to the letter.

    python -m tests.damage [EVERY]

Prints what was found and what was missed by kind of damage, and where following the advice did not end in the store as
it was. With EVERY, only each so-manieth damage is planted.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import tree
from tests.kills import Inline
from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig, TileConfig
from wsicurate.errors import EmbeddingMissingError
from wsicurate.steps.check import CheckReport, check
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

CURATE = CurateConfig(encoder="filter-bank", budget=0.5, copies="none", evaluation_encoder=None, name="half")


@dataclass(frozen=True)
class Damage:
    """One thing done to a store.

    Attributes:
        kind: what is done, for the table.
        where: path of what is damaged, below the store.
        plant: does it to a copy of the store.
    """

    kind: str
    where: str
    plant: Callable[[Path], object]


class Sound:
    """A small store with tiled and imported slides, vectors and a curation, and the commands that made it."""

    def __init__(self, folder: Path) -> None:
        from PIL import Image

        self.folder, self.store = folder, folder / "sound.zarr"
        for seed in (1, 2):
            small = SyntheticSlide(width=768, height=768, tissue=0.6, seed=seed)
            write_slide(folder / "slides" / f"{seed}.svs", small)
        pixels = np.random.default_rng(1).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
        for number in range(4):
            path = folder / "images" / ("ab"[number % 2]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number]).save(path)
        self.tile(self.store)
        self.import_(self.store)
        self.embed(self.store)
        self.curate(self.store)
        self.files = self.look(self.store)

    @staticmethod
    def look(store: Path) -> dict[str, bytes]:
        """All bytes but the records of runs."""
        return {name: data for name, data in tree(store).items() if not name.startswith("runs/2")}

    def tile(self, store: Path, **options: Any) -> None:
        tile(self.folder / "slides", store, TileConfig(patch_px=64, **options), executor=Inline())

    def import_(self, store: Path, **options: Any) -> None:
        import_patches(
            self.folder / "images", store, ImportConfig(layout="label", mpp=0.5, **options), executor=Inline()
        )

    def embed(self, store: Path, **options: Any) -> None:
        embed(store, EmbedConfig(encoder="filter-bank", **options), executor=Inline())

    def curate(self, store: Path, **options: Any) -> None:
        curate(store, replace(CURATE, **options), executor=Inline())

    def follow(self, store: Path, report: CheckReport) -> None:
        """Do what each problem says, each command once."""
        done: set[str] = set()
        for problem in report.problems:
            advice, path = problem.what.rpartition("; ")[2], store / problem.where
            said = advice.partition(" (")[0]  # what stands in brackets is for vectors that were imported
            options = {"overwrite": True} if "--overwrite" in said else {}
            command = self._command(advice)
            if command == "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            elif command not in done:
                done.add(command)
                if command == "tile":
                    self.tile(store, **options)
                    self.import_(store, **options)
                elif command == "embed":
                    self.embed(store, **options)
                else:
                    try:
                        self.curate(store, **options)
                    except EmbeddingMissingError:  # of slides that were just tiled anew; it says: run embed
                        self.embed(store)
                        self.curate(store, **options)

    @staticmethod
    def _command(advice: str) -> str:
        if "tile it" in advice or "import it" in advice or "tile or import" in advice or "same command" in advice:
            return "tile"
        if "embed it again" in advice or "the next" in advice:
            return "embed"
        for command in ("curate", "remove"):
            if command in advice:
                return command
        raise AssertionError(f"nothing can be done about: {advice}")


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[min(int(share * len(data)), len(data) - 1)] ^= 1 << int(share * 7)
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def exchange(one: Path, other: Path) -> None:
    held = one.with_name("held")
    one.rename(held)
    other.rename(one)
    held.rename(other)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a JSON document that is no object or array."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path


def edit(path: Path, leaf: tuple[Any, ...], *, remove: bool) -> None:
    """Change one value of a JSON document as an editor would, layout kept."""
    document = json.loads(path.read_bytes())
    place = document
    for part in leaf[:-1]:
        place = place[part]
    value = place[leaf[-1]]
    if remove:
        del place[leaf[-1]]
    elif isinstance(value, bool):
        place[leaf[-1]] = not value
    elif isinstance(value, int | float):
        place[leaf[-1]] = value + 1
    else:
        place[leaf[-1]] = f"{value}x"
    path.write_bytes((json.dumps(document, indent=2) + "\n").encode())


def damages(sound: Sound) -> Iterator[Damage]:
    """Every damage that is planted."""
    files = tree(sound.store)
    for name, data in files.items():
        if data:
            for share in (0.0, 0.3, 0.5, 0.7, 0.99):
                yield Damage("a flipped bit", name, lambda s, n=name, share=share: flip(s / n, share))
            yield Damage("cut short", name, lambda s, n=name: truncate(s / n))
            yield Damage("emptied", name, lambda s, n=name: (s / n).write_bytes(b""))
        yield Damage("a byte appended", name, lambda s, n=name: append(s / n))
        yield Damage("a pipe in its place", name, lambda s, n=name: _pipe(s / n))
        if not name.startswith("runs/2"):  # a run that was killed leaves no record either
            yield Damage("deleted", name, lambda s, n=name: (s / n).unlink())
        if name.endswith(".json"):
            for leaf in leaves(json.loads(data)):
                yield Damage("a value edited", name, lambda s, n=name, leaf=leaf: edit(s / n, leaf, remove=False))
                if isinstance(leaf[-1], str):
                    yield Damage("a value removed", name, lambda s, n=name, leaf=leaf: edit(s / n, leaf, remove=True))
    slides = sorted({name.split("/")[1] for name in files if name.count("/") > 1 and name.startswith("slides/")})
    pairs = [(one, other) for one in slides for other in slides if one < other]
    for one, other in pairs:
        yield Damage(
            "slides exchanged", f"slides/{one}", lambda s, a=one, b=other: exchange(s / "slides" / a, s / "slides" / b)
        )
        for part in ("images", "xy", "quality", "tissue", "overview", "dropped_xy", "dropped_reason", "name", "label",
                     "embeddings", "zarr.json"):  # fmt: skip
            a, b = f"slides/{one}/{part}", f"slides/{other}/{part}"
            if (
                (sound.store / a).exists()
                and (sound.store / b).exists()
                and tree(sound.store / a) != tree(sound.store / b)
            ):
                yield Damage("arrays exchanged", a, lambda s, a=a, b=b: exchange(s / a, s / b))
    yield from _vectors(sound)
    yield from _manifest(sound)
    folders = sorted({str(Path(name).parent) for name in files})
    for folder in folders:
        for name in ("stray", ".DS_Store", ".partial-0123456789ab-1-1-0"):
            where = f"{folder}/{name}".removeprefix("./")
            yield Damage("a file too many", where, lambda s, w=where: (s / w).write_bytes(b"x"))
        where = f"{folder}/linked".removeprefix("./")
        yield Damage("a link", where, lambda s, w=where: (s / w).symlink_to(s.parent))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _vectors(sound: Sound) -> Iterator[Damage]:
    """Vectors that are written as they should be, and are not those that belong there."""
    from wsicurate.store.embeddings import read_embedding, read_embedding_record, write_embedding
    from wsicurate.store.local_bytes import LocalBytes

    def rewrite(store: Path, key: str, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        local = LocalBytes(store)
        record, vectors = read_embedding_record(local, key, "filter-bank"), read_embedding(local, key, "filter-bank")
        write_embedding(local, key, *change(record, vectors))

    key = sorted(path.name for path in (sound.store / "slides").iterdir() if path.is_dir())[0]
    changes: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
        "vectors of other patches": lambda r, v: (replace(r, content_hash="0" * 32), v),
        "too few vectors": lambda r, v: (r, v[:-1]),
        "another length": lambda r, v: (replace(r, dim=r.dim - 1), v[:, :-1]),
    }
    for kind, change in changes.items():
        yield Damage(kind, f"slides/{key}/embeddings/filter-bank", lambda s, c=change: rewrite(s, key, c))


def _manifest(sound: Sound) -> Iterator[Damage]:
    """A manifest that opens, and says other things."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = "curations/half/manifest/part-00000.parquet"

    def inverted(store: Path) -> None:
        table = pq.read_table(store / part, use_threads=False)
        place = table.column_names.index("selected")
        selected = pa.array(~table["selected"].to_numpy())
        pq.write_table(table.set_column(place, "selected", selected), store / part)

    def turned(store: Path) -> None:
        table = pq.read_table(store / part, use_threads=False)
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), store / part)

    yield Damage("selected inverted", part, inverted)
    yield Damage("rows turned round", part, turned)


def campaign(folder: Path, every: int, *, advise: bool) -> tuple[Counter[str], list[str], list[str]]:
    """Plant damage after damage.

    Returns:
        Number planted by kind, what was missed, and where the advice did not work.
    """
    sound = Sound(folder)
    undamaged = check(sound.store, executor=Inline())
    if undamaged.problems:
        raise AssertionError(f"the sound store is not: {undamaged.problems}")
    planted: Counter[str] = Counter()
    missed, unhelpful = [], []
    advised: set[tuple[str, str]] = set()
    for number, damage in enumerate(damages(sound)):
        if number % every:
            continue
        store = folder / "damaged.zarr"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(sound.store, store)
        damage.plant(store)
        planted[damage.kind] += 1
        report = check(store, executor=Inline())
        if not any(damage.where.startswith(p.where) or p.where.startswith(damage.where) for p in report.problems):
            missed.append(f"{damage.kind}: {damage.where}: {[problem.where for problem in report.problems]}")
            continue
        if not advise or (damage.kind, damage.where) in advised:
            continue
        advised.add((damage.kind, damage.where))
        try:
            for _ in range(3):  # some damage hides other damage
                if report.problems:
                    sound.follow(store, report)
                    report = check(store, executor=Inline())
        except Exception as error:
            unhelpful.append(f"{damage.kind}: {damage.where}: {type(error).__name__}: {error}")
            continue
        found = sound.look(store)
        differing = [name for name in found.keys() | sound.files.keys() if found.get(name) != sound.files.get(name)]
        if report.problems or differing:
            unhelpful.append(f"{damage.kind}: {damage.where}: {list(report.problems)[:2]} {sorted(differing)[:3]}")
    return planted, missed, unhelpful


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        counts, lost, useless = campaign(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else 1, advise=True)
    for line in lost:
        print("MISSED", line)
    for line in useless:
        print("ADVICE", line)
    for kind, count in counts.items():
        here = sum(line.startswith(f"{kind}:") for line in lost)
        print(f"{kind:28} {count - here:5} found {here:3} missed")
    print(f"{sum(counts.values())} planted, {len(lost)} missed; advice that did not work: {len(useless)}")
