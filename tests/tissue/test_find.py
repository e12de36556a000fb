"""Masks by name, of other packages, and from Python."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.config import TileConfig
from wsicurate.errors import ConfigError, MaskError, SlideTimeoutError
from wsicurate.plugins import plugins
from wsicurate.tissue.find import MASKS, find_mask, require_picklable

OVERVIEW = np.full((30, 40, 3), 255, dtype=np.uint8)


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package ``mine`` of version 1.2: ``install(name=mask, ...)``."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(site)
    folder = site / "mine-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
    module = f"mine_{site.name}"

    def write(**masks: Any) -> None:
        points = [f"{name} = {module}:{name}" for name in masks]
        (folder / "entry_points.txt").write_text("\n".join(["[wsicurate.masks]", *points]))
        sys.modules[module] = ModuleType(module)
        vars(sys.modules[module]).update(masks)
        plugins.cache_clear()

    yield write
    sys.modules.pop(module, None)
    plugins.cache_clear()


class Everything:
    """A mask; ``give`` makes something else of its answer."""

    def __init__(self, give: Callable[[NDArray[np.bool_]], Any] = lambda found: found) -> None:
        self.give = give

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> Any:
        overview[0, 0] = 7
        return self.give(np.ones(overview.shape[:2], dtype=bool))


class Tiles:
    mpp, tile_px = 2.0, 64

    def predict(self, tiles: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        return np.ones(tiles.shape[:3], dtype=bool)


def function(overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    return np.ones(overview.shape[:2], dtype=bool)


def no_picture(mpp: float) -> Any:
    raise AssertionError("it wants to see the overview")


def test_ours_are_recorded_as_ever() -> None:
    assert {name: find_mask(name).recorded for name in MASKS} == {name: f"{name}-1" for name in MASKS}


def test_a_mask_of_another_package_by_its_name(install: Callable[..., None]) -> None:
    class Named(Everything):
        name, version = "all of it", 7

    install(everything=Everything, function=function, named=Named, tiles=Tiles(), otsu=Everything)
    assert find_mask("everything").recorded == "everything-1.2 (mine)"
    assert find_mask("function").recorded == "function-1.2 (mine)"
    assert find_mask("named").recorded == "all of it-7 (mine)"
    assert find_mask("tiles").recorded == "tiles-1.2 (mine)"
    assert find_mask("otsu").recorded == "otsu-1"
    assert find_mask("everything") is find_mask("everything")
    with pytest.raises(ConfigError) as caught:
        find_mask("unet")
    assert str(caught.value) == (
        "--mask is 'unet'; choose one of otsu, tiatoolbox-otsu, tiatoolbox-morphological, everything, function, named, "
        "tiles"
    )


def test_an_object_a_class_or_a_function_from_python() -> None:
    assert find_mask(Everything()).recorded == f"Everything-0 ({__name__})"
    assert find_mask(Everything).tissue(OVERVIEW, 8.0, no_picture).all()
    assert find_mask(function).recorded == f"function-0 ({__name__})"
    assert find_mask(np.linalg.norm).recorded == f"norm-{np.__version__} (numpy)"
    assert isinstance(TileConfig(mask=Tiles()).mask, Tiles)


def test_what_a_mask_is_shown_and_gives_is_not_shared() -> None:
    kept: list[NDArray[np.bool_]] = []

    def keep(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        kept.append(found)
        return found

    found = find_mask(Everything(keep)).tissue(OVERVIEW, 8.0, no_picture)
    found[:] = False
    assert kept[0].all()
    assert (OVERVIEW == 255).all()


def failing(error: BaseException) -> Callable[[Any], Any]:
    def give(found: Any) -> Any:
        raise error

    return give


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (failing(RuntimeError("CUDA out of memory")), "failed: RuntimeError: CUDA out of memory"),
        (failing(SystemExit(2)), "failed: SystemExit: 2"),
        (failing(ConfigError("no weights")), "failed: ConfigError: no weights"),
        (failing(MemoryError()), "failed: MemoryError"),
        (lambda found: found.astype(np.uint8), "gave uint8 (30, 40), not bool (30, 40)"),
        (lambda found: found[1:], "gave bool (29, 40), not bool (30, 40)"),
        (lambda found: found.tolist(), "gave a list, not a numpy array of bool (30, 40)"),
        (lambda found: None, "gave a NoneType, not a numpy array of bool (30, 40)"),
    ],
)
def test_a_mask_that_fails_costs_its_slide(
    install: Callable[..., None], give: Callable[[Any], Any], message: str
) -> None:
    install(bad=Everything(give))
    find_mask.__globals__["_loaded"].cache_clear()
    with pytest.raises(MaskError) as caught:
        find_mask("bad").tissue(OVERVIEW, 8.0, no_picture)
    assert str(caught.value).startswith(f"the tissue mask 'bad' of mine {message}")


def test_the_clock_is_not_the_mask_s_fault() -> None:
    with pytest.raises(SlideTimeoutError):
        find_mask(Everything(failing(SlideTimeoutError("late")))).tissue(OVERVIEW, 8.0, no_picture)


def with_facts(kind: type, **facts: Any) -> Any:
    return type("Wrong", (kind,), facts)()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (with_facts(Everything, version=1.5), "has the version 1.5; give it a whole number or a text"),
        (with_facts(Everything, version=True), "has the version True"),
        (with_facts(Everything, version=""), "has the version empty"),
        (with_facts(Everything, mpp=0), "has the mpp 0; give µm per pixel"),
        (with_facts(Everything, mpp="1"), "has the mpp '1'"),
        (with_facts(Everything, mpp=float("inf")), "has the mpp inf"),
        (with_facts(Tiles, mpp=None), "has the mpp None"),
        (with_facts(Tiles, tile_px=0), "has the tile_px 0; give a whole number, at least 1"),
        (with_facts(Tiles, tile_px=None), "has the tile_px None"),
        (with_facts(Tiles, batch=1.5), "has the batch 1.5"),
        (with_facts(Tiles, predict=3), "give a function, or an object that can be called or has predict"),
        (with_facts(object), "give a function, or an object that can be called or has predict"),
    ],
)
def test_facts_that_cannot_be(mask: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_mask(mask)
    assert str(caught.value).startswith("the tissue mask 'Wrong' of ")
    assert message in str(caught.value)


def test_a_name_that_is_none_and_a_class_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match=r"has the name 3; give it a text"):
        find_mask(with_facts(Everything, name=3))

    class Needs:
        def __init__(self, weights: str) -> None:
            self.weights = weights

    with pytest.raises(ConfigError, match=r"the tissue mask 'Needs' of .* cannot be made without arguments: TypeError"):
        find_mask(Needs)


def test_what_cannot_be_sent_to_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for fine in ("otsu", function, Tiles(), Tiles):
        require_picklable(fine)
    with pytest.raises(ConfigError, match=r"cannot be sent to worker processes: .*lambda.*; define it in a module"):
        require_picklable(lambda overview, mpp: None)

    class Script(Everything):
        pass

    Script.__module__, Script.__qualname__ = "__main__", "Script"
    monkeypatch.setattr(sys.modules["__main__"], "Script", Script, raising=False)
    script = Script(len)
    pickle.loads(pickle.dumps(script))
    with pytest.raises(ConfigError, match=r"UnpicklingError: Script is defined in a script or notebook; define it"):
        require_picklable(script)
