"""Which slides of a store are finished, and what their marks say."""

from __future__ import annotations

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.layout import ROOT, SLIDES, mark_path, slide_path
from wsicurate.store.records import SlideRecord, StoreRecord


def read_slide_record(store: ByteStore, key: str) -> SlideRecord | None:
    """Attributes of a slide, or None if it is not finished.

    Raises:
        StoreFormatError: if it is of a later format.
        CorruptStoreError: if they are damaged, or a field is missing or of another type.
    """
    try:
        return SlideRecord.from_json(store.get(mark_path(key)), slide_path(key))
    except KeyError:
        return None


def read_slides(
    store: ByteStore, store_record: StoreRecord | None = None
) -> tuple[dict[str, SlideRecord], dict[str, str]]:
    """Attributes of the finished slides, and what is wrong with those that cannot be used; both sorted by key.

    Args:
        store: where.
        store_record: the store's attributes, which a slide must fit; None compares nothing.
    """
    records: dict[str, SlideRecord] = {}
    damaged: dict[str, str] = {}
    for key in store.children(SLIDES):
        if key == ROOT:
            continue
        try:
            record = read_slide_record(store, key)
        except (CorruptStoreError, OSError) as error:
            damaged[key] = f"{error}; tile or import it again with --overwrite"
            continue
        except StoreFormatError as error:
            damaged[key] = str(error)
            continue
        if record is None:
            continue
        if store_record is not None and record.patch_px != store_record.patch_px:
            damaged[key] = (
                f"{slide_path(key)} has patches of {record.patch_px} px, the store of {store_record.patch_px} px; "
                "tile or import it again with --overwrite"
            )
            continue
        records[key] = record
    return records, damaged


def is_committed(store: ByteStore, key: str) -> bool:
    """Whether a slide is finished, whatever its mark says."""
    try:
        store.size(mark_path(key))
    except KeyError:
        return False
    return True
