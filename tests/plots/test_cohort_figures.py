"""Figures of slides, patches and vectors say what the store says."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
from matplotlib import pyplot

import wsicurate
from wsicurate import plots
from wsicurate.colours import CATEGORIES, COLOURS, hex_colour
from wsicurate.decisions import DECISIONS
from wsicurate.errors import ConfigError, ManifestError
from wsicurate.plots.axes import colours_of
from wsicurate.store.store import Store


def legend_of(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(ax: Any) -> None:
    """Draw the figure: what matplotlib cannot draw fails here."""
    ax.figure.canvas.draw()


def test_the_package_is_public_and_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    assert wsicurate.plots is plots
    assert sorted(plots.__all__) == plots.__all__
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'pip install "wsicurate\[plots\]"'):
        plots.mosaic(store[:2])


def test_every_decision_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == {*DECISIONS, "stored"}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_an_overview_has_the_patches_where_they_lie(store: Store) -> None:
    slide, curation = next(iter(store.slides.values())), store.curation("half")
    _, ax = pyplot.subplots()
    assert plots.slide_overview(slide, curation, ax=ax) is ax
    drawn(ax)
    table = curation.manifest()
    own = [row for row in table.to_pylist() if row["slide_id"] == slide.slide_id]
    counts = Counter(row["decision"] for row in own)
    assert legend_of(ax) == [f"{name} ({counts[name]:,})" for name in COLOURS if name in counts]
    assert len(counts) > 1
    pitch = slide.record.reading["pitch"]
    for name, squares in zip([name for name in COLOURS if name in counts], ax.collections, strict=False):
        corners = np.array([path.vertices[0] for path in squares.get_paths()])
        wanted = [(row["x"], row["y"]) for row in own if row["decision"] == name]
        np.testing.assert_array_equal(corners, wanted)
        assert np.ptp(squares.get_paths()[0].vertices, axis=0).tolist() == [pitch, pitch]
        assert matplotlib.colors.to_hex(squares.get_facecolor()[0]) == hex_colour(name)
    assert ax.get_xlim() == (0, slide.record.reading["width"])
    assert ax.get_ylim() == (slide.record.reading["height"], 0)
    assert ax.get_title() == slide.record.name


def test_the_outline_runs_between_tissue_and_background(store: Store) -> None:
    slide = next(iter(store.slides.values()))
    ax = plots.slide_overview(slide)
    assert legend_of(ax) == [f"stored ({len(slide):,})"]
    border = ax.collections[-1].get_paths()[0].vertices
    rows, columns = slide.tissue.shape
    x = border[:, 0] * columns / slide.record.reading["width"]
    y = border[:, 1] * rows / slide.record.reading["height"]
    framed = np.pad(slide.tissue, 1)
    for column, row in zip(x, y, strict=True):  # its neighbours, half a pixel away, differ
        near = framed[int(np.floor(row + 0.5)) :, int(np.floor(column + 0.5)) :][:2, :2]
        assert near.any() and not near.all()


def test_names_of_slides_are_no_formulas(store: Store) -> None:
    slide = next(iter(store.slides.values()))
    slide.record = replace(slide.record, name=r"a$\frac{_^$<b>.svs")
    ax = plots.slide_overview(slide)
    drawn(ax)
    groups = ["_hidden", r"$\frac{", "plain\nlines"]
    ax = plots.mosaic(store[:6], by=groups * 2)
    drawn(ax)
    assert legend_of(ax) == [f"{name} (2)" for name in sorted(groups)]


def test_a_curation_of_other_patches_is_refused(store: Store) -> None:
    slide, curation = next(iter(store.slides.values())), store.curation("half")
    slide.record = replace(slide.record, content_hash="0")
    with pytest.raises(ManifestError, match="holds other patches now"):
        plots.slide_overview(slide, curation)
    slide.key = "another@0.5"
    with pytest.raises(ConfigError, match="the curation half does not know the slide another@0.5"):
        plots.slide_overview(slide, curation)


def test_a_mosaic_shows_the_patches_in_frames(store: Store) -> None:
    patches = store[:5]
    ax = plots.mosaic(patches, columns=3, patch_px=256)
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * 256 + 16, 3 * 256 + 32, 3)
    np.testing.assert_array_equal(sheet[272:, 272 : 272 + 256], patches[4])
    assert (sheet[272:, 544:] == 255).all()
    framed = plots.mosaic(patches, columns=3, patch_px=64, by=["selected", "copy", None, "copy", "copy"])
    assert legend_of(framed) == ["selected (1)", "copy (3)", "none (1)"]
    sheet = framed.images[0].get_array()
    assert tuple(sheet[0, 0]) == COLOURS["selected"] and tuple(sheet[0, 80]) == COLOURS["copy"]
    for wrong in (patches[0], patches.astype(float), patches[:0], [1]):
        with pytest.raises(ConfigError, match=r"give uint8 of shape \(n, h, w, 3\)"):
            plots.mosaic(wrong)
    with pytest.raises(ConfigError, match="by has 4 entries for 5 patches"):
        plots.mosaic(patches, by=list("abcd"))
    with pytest.raises(ConfigError, match="columns is 0"):
        plots.mosaic(patches, columns=0)


def test_groups_beyond_the_colours_are_grey() -> None:
    texts = [letter for number, letter in enumerate("abcdefghij") for _ in range(10 - number)]
    found = colours_of([*texts, "none"])
    assert list(found) == [*"abcdefg", "others", "none"]
    assert [found[name] for name in "abcdefg"] == list(CATEGORIES[:7])
    assert found["others"] == CATEGORIES[7]


def test_a_map_shows_what_the_report_shows(store: Store) -> None:
    from wsicurate.report.embedding_map import plane

    vectors, table = store.vectors("stain-texture"), store.curation("half").manifest()
    ax = plots.embedding_map(vectors, by=table["decision"])
    drawn(ax)
    counts = Counter(table["decision"].to_pylist())
    assert legend_of(ax) == [f"{name} ({counts[name]})" for name in COLOURS if name in counts]
    places, method = plane(vectors)
    points = np.asarray(ax.collections[0].get_offsets())
    assert sorted(map(tuple, points.tolist())) == sorted(map(tuple, places.tolist()))
    at = {tuple(place): name for place, name in zip(places.tolist(), table["decision"].to_pylist(), strict=True)}
    for point, colour in zip(points.tolist(), ax.collections[0].get_facecolor(), strict=True):
        assert matplotlib.colors.to_hex(colour) == hex_colour(at[tuple(point)])
    assert method in ax.get_xlabel()
    some = plots.embedding_map(vectors, most=20)
    assert len(some.collections[0].get_offsets()) == 20
    assert some.get_title() == f"20 of {len(store)} patches"
    with pytest.raises(ConfigError, match="at least 3 vectors"):
        plots.embedding_map(vectors[:2])


def test_a_region_is_put_together_from_patches(store: Store) -> None:
    slide = next(iter(store.slides.values()))
    region = plots.stitched_region(slide, 7, tiles=3)
    px, pitch = slide.record.patch_px, slide.record.reading["pitch"]
    assert region.shape == (3 * px, 3 * px, 3)
    np.testing.assert_array_equal(region[px : 2 * px, px : 2 * px], slide[7])
    cells = {tuple(cell): row for row, cell in enumerate(np.rint(slide.xy / pitch).astype(int).tolist())}
    x, y = np.rint(slide.xy[7] / pitch).astype(int)
    for right in (-1, 0, 1):
        for down in (-1, 0, 1):
            row = cells.get((x + right, y + down))
            part = region[(1 + down) * px : (2 + down) * px, (1 + right) * px : (2 + right) * px]
            np.testing.assert_array_equal(part, np.full_like(part, 255) if row is None else slide[row])
    fullest = plots.stitched_region(slide, tiles=3).reshape(3, px, 3, px, 3)
    there = (fullest != 255).any(axis=(1, 3, 4)).sum()
    most = max(
        sum((x + i, y + j) in cells for i in range(3) for j in range(3)) for x in range(-2, 40) for y in range(-2, 40)
    )
    assert there == most
    with pytest.raises(ConfigError, match="no row 9999"):
        plots.stitched_region(slide, 9999)
    with pytest.raises(ConfigError, match="tiles is 0"):
        plots.stitched_region(slide, tiles=0)


def test_axes_of_something_else_are_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="ax is 3; give axes of matplotlib"):
        plots.mosaic(store[:2], ax=3)
