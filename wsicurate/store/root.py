"""A store's root: its attributes, the groups below it, and how they are written anew where they were damaged."""

from __future__ import annotations

from wsicurate._version import __version__
from wsicurate.errors import CorruptStoreError, StoreFormatError, StoreNotFoundError
from wsicurate.store.arrays import group_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.committed import is_committed, read_slides
from wsicurate.store.layout import CURATIONS, ROOT, RUNS, SLIDES, WORK
from wsicurate.store.records import CODECS, MATERIALISED, StoreRecord, shared_choice

#: What is done about a damaged root.
_ROOT_FIX = "the next tile, import, embed or curate of this store writes it anew from the slides' records"

#: What lies in a store's root.
_ROOT_NAMES = {ROOT, SLIDES, RUNS, CURATIONS, WORK}


def read_store_record(store: ByteStore, name: str) -> StoreRecord:
    """The root's attributes; ``name`` is the store's path, for messages.

    Raises:
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is something else, or of another format.
        CorruptStoreError: if it is a store whose attributes are damaged or gone; `restore_root` writes them anew.
    """
    try:
        data = store.get(ROOT)
    except KeyError:
        if not set(store.children()) <= _ROOT_NAMES:  # else it is being made just now, or its maker died
            raise StoreFormatError(
                f"{name} exists and is not a store (it has no {ROOT}); choose another path"
            ) from None
        if any(is_committed(store, key) for key in store.children(SLIDES)):
            raise CorruptStoreError(f"{name}/{ROOT} is gone; {_ROOT_FIX}") from None
        raise StoreNotFoundError(
            f"there is no store at {name}; make one with: wsicurate tile SLIDES -o {name}"
        ) from None
    try:
        return StoreRecord.from_json(data, name)
    except CorruptStoreError as error:
        raise CorruptStoreError(f"{error}; {_ROOT_FIX}") from error
    except StoreFormatError as error:
        if set(store.children()) <= _ROOT_NAMES and any(key != ROOT for key in store.children(SLIDES)):
            raise CorruptStoreError(f"{error}; {_ROOT_FIX}") from error
        raise


def create_store(store: ByteStore, record: StoreRecord) -> None:
    """Write the groups of a new store; the root last. Does nothing to groups that are as they should be."""
    restore_groups(store)
    store.put_if_absent(ROOT, record.to_json())


def restore_groups(store: ByteStore) -> None:
    """Write the groups below the root that are missing or damaged: they hold nothing but their being groups."""
    for group in (SLIDES, RUNS):
        if not is_group(store, group):
            store.put(f"{group}/{ROOT}", [group_metadata({})])


def is_group(store: ByteStore, group: str) -> bool:
    """Whether a group below the root is as it was written."""
    try:
        return store.get(f"{group}/{ROOT}") == group_metadata({})
    except KeyError:
        return False


def restore_root(store: ByteStore, name: str) -> StoreRecord:
    """The store's attributes, written anew from its slides' where they are damaged or gone.

    Raises:
        CorruptStoreError: if they are damaged and no slide says what they were.
        StoreNotFoundError, StoreFormatError: as `read_store_record` does.
    """
    try:
        return read_store_record(store, name)
    except CorruptStoreError as error:
        record = root_of_slides(store)
        if record is None:
            raise CorruptStoreError(
                f"{error}, and no slide of the store can be read that says what stood there; restore it from a "
                "copy, or tile into a new store"
            ) from error
        store.put(ROOT, [record.to_json()])
        return record


def root_of_slides(store: ByteStore) -> StoreRecord | None:
    """The store's attributes as its slides' settings tell them, or None if none can be read.

    The latest settings of tiling that any slide has are taken: those of the first slide that was tiled.
    """
    records, _ = read_slides(store)
    found: StoreRecord | None = None
    for slide in records.values():
        settings = dict(slide.settings)
        patch_px, codec, quality = (settings.pop(name, None) for name in ("patch_px", "codec", "quality"))
        settings.pop("mpp", None)
        materialised = settings.pop(MATERIALISED, None)
        if codec not in CODECS or patch_px != slide.patch_px:
            continue
        tiling = None if slide.is_imported else settings
        record = StoreRecord(
            patch_px=patch_px,
            codec=codec,
            quality=quality,
            version=slide.version or __version__,
            tiling=tiling,
            materialised=None if materialised is None else shared_choice(materialised),
        )
        if tiling is not None:
            return record
        found = found or record
    return found
