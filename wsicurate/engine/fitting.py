"""Whether a store fits a run that is about to fill it; it is made where there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any

from wsicurate.errors import ConfigError, CorruptStoreError, StoreNotFoundError, StoreSettingsError
from wsicurate.store.committed import read_slides
from wsicurate.store.layout import ROOT, SLIDES, case_twins
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import StoreRecord, differences
from wsicurate.store.root import create_store, read_store_record, restore_root


class Fitting:
    """Makes a store, or checks that it fits.

    Args:
        store: the store.
        record: its attributes, as the run would make them.
        keys: of the slides that the run works on.
        comparable: what of the attributes must be equal for two runs to share a store.
        overwrite: whether the run redoes slides that were made otherwise.
    """

    def __init__(
        self,
        store: LocalBytes,
        record: StoreRecord,
        keys: Collection[str],
        comparable: Callable[[StoreRecord], Mapping[str, Any]],
        overwrite: bool,
    ) -> None:
        self._store = store
        self._name = str(store.root)
        self._record = record
        self._keys = keys
        self._comparable = comparable
        self._overwrite = overwrite
        self._there: StoreRecord | None = None
        self._differences: list[str] = []

    def check(self, *, is_dry: bool) -> str:
        """Find out whether the store fits, and make it where there is none.

        Args:
            is_dry: whether nothing may be written.

        Returns:
            What was restored of it, in a sentence; empty if nothing was.

        Raises:
            ConfigError: if two slides differ in case alone, and its file system takes them for one.
            CorruptStoreError: if its attributes are damaged, and may not be restored or cannot be.
            StoreFormatError: if it is something else.
            StoreSettingsError: if it was made with other settings, and not all of its slides are redone.
            StoreWriteError: if it cannot be written.
        """
        note = ""
        try:
            self._there = read_store_record(self._store, self._name)
        except StoreNotFoundError:
            if is_dry:
                return ""
            create_store(self._store, self._record)
            self._there = read_store_record(self._store, self._name)
        except CorruptStoreError as error:
            if is_dry:
                raise
            self._there = restore_root(self._store, self._name)
            note = f"{error}: done"
        self._differences = differences(self._comparable(self._there), self._comparable(self._record))
        self._refuse_other_settings()
        self._refuse_case_twins()
        return note

    def settle(self) -> None:
        """Bring the store's attributes up to what this run makes of it.

        Raises:
            StoreWriteError: if it cannot be written.
        """
        if self._differences:
            self._store.put(ROOT, [self._record.to_json()])
        elif self._there is not None and self._there.tiling is None and self._record.tiling is not None:
            self._store.put(ROOT, [dataclasses.replace(self._there, tiling=self._record.tiling).to_json()])

    def _refuse_other_settings(self) -> None:
        found = self._differences
        others = [key for key in chain(*read_slides(self._store)) if key not in self._keys] if found else []
        if not found or (self._overwrite and not others):
            return
        kept = f", and {len(others)} slides of it are not redone (such as {others[0]})" if self._overwrite else ""
        raise StoreSettingsError(
            f"the store {self._name} was made with other settings: {'; '.join(found)}{kept}. "
            "Use the same settings, or another -o" + ("" if self._overwrite else ", or --overwrite to redo its slides")
        )

    def _refuse_case_twins(self) -> None:
        twins = case_twins([*self._keys, *self._store.children(SLIDES)])
        if twins is None:
            return
        try:
            self._store.get(ROOT.upper())
        except KeyError:
            return  # case makes a difference here
        raise ConfigError(
            f"{twins[0]} and {twins[1]} differ in case alone, and the file system of {self._name} takes them for one "
            "name; rename one (for tile, by its slide_id in --slide-table), or put the store elsewhere"
        )
