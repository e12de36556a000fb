"""torch's archives, before torch opens them: it believes the sizes that they claim, and reads on past the end."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch

from wsicurate.embedding.weight_files import unpacks_to_much
from wsicurate.errors import EncoderError

#: Pickles of an archive, and the folders of the bytes of their tensors.
_PICKLES = {"data.pkl": "data", "constants.pkl": "constants"}


#: Bytes of an element, by what a class of storages is called.
_ITEM_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4", "Untyped"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}


class Archive:
    """The files of an archive of `torch.save` or `torch.jit.save`, read by torch's own reader: two could disagree.

    Args:
        path: the archive.

    Raises:
        EncoderError: if it cannot be read, holds two files of one name, or unpacks to far more than its size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        fault = unpacks_to_much(path)
        if fault:
            raise EncoderError(f"{path}: {fault}; it is not opened")
        try:
            self._reader = torch._C.PyTorchFileReader(str(path))
            self.names: list[str] = list(self._reader.get_all_records())
        except Exception as error:
            raise EncoderError(f"{path} is no archive of torch that can be read: {_first_line(error)}") from error
        if len(set(self.names)) < len(self.names):
            raise EncoderError(f"{path} holds files of the same name; it is damaged, or made to mislead: not opened")

    def read(self, name: str) -> bytes:
        """A file of the archive.

        Raises:
            EncoderError: if it is damaged.
        """
        try:
            return bytes(self._reader.get_record(name))
        except Exception as error:
            raise EncoderError(f"{self.path} cannot be read: {name}: {_first_line(error)}") from error

    def size(self, name: str) -> int:
        """Bytes of a file of the archive."""
        if hasattr(self._reader, "get_record_size"):
            return int(self._reader.get_record_size(name))
        return len(self.read(name))

    def check_tensors(self) -> None:
        """Compare the size of every tensor's bytes with what the pickles say.

        Raises:
            EncoderError: which names the file that is too short, or too long.
        """
        for name, folder in _PICKLES.items():
            if name not in self.names:
                continue
            survey = _Survey(io.BytesIO(self.read(name)))
            try:
                survey.load()
            except Exception as error:  # whatever damage makes of it
                raise EncoderError(f"{self.path} cannot be read: {name}: {_first_line(error)}") from error
            for key, claimed in survey.storages:
                record = f"{folder}/{key}"
                held = self.size(record) if record in self.names else 0
                if held != claimed:
                    raise EncoderError(f"{self.path} is damaged: {record} holds {held:,} bytes, not {claimed:,}")


class _Inert:
    """What every object of a pickle is, while it is only looked at: it takes whatever is put into it."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Nothing."""

    def extend(self, values: Any) -> None:
        """Nothing."""


class _Survey(pickle._Unpickler):
    """Runs through a pickle without making anything of it, and notes the tensors' bytes that it refers to.

    That of Python, written in Python: TorchScript's pickles bend the rules of the other.

    Attributes:
        storages: key and number of bytes of each.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: list[tuple[str, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        """A storage's class gets its element size; everything else means nothing."""
        made = type(name, (_Inert,), {})
        if module in ("torch", "torch.storage"):
            made.itemsize = _ITEM_BYTES.get(name.removesuffix("Storage"))  # type: ignore[attr-defined]
        return made

    def persistent_load(self, pid: Any) -> Any:
        """Note ``("storage", class, key, place, number of elements)``."""
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(f"an unknown reference {str(pid)[:100]!r}")
        itemsize = getattr(storage, "itemsize", None)
        if itemsize is None:
            raise pickle.UnpicklingError(f"an unknown type of tensors {getattr(storage, '__name__', '')[:100]!r}")
        self.storages.append((key, count * int(itemsize)))
        return _Inert()

    def _load_call(self) -> None:
        """Instead of calling a function, or making an object, with arguments."""
        self.stack.pop()
        self.stack[-1] = _Inert()

    def _load_state(self) -> None:
        """Instead of giving an object its state."""
        self.stack.pop()

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _load_call
    dispatch[pickle.BUILD[0]] = _load_state


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
