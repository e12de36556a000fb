"""WebDataset: tar files of ``KEY.jpg`` and ``KEY.json``, as the libraries webdataset and wids read them.

Headers are those of POSIX ustar with nothing in them that depends on when, where or by whom they were written.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from wsicurate.formats.exports.base import Format, Piece, Written

_BLOCK = tarfile.BLOCKSIZE


class WebDataset(Format):
    """``patches-000000.tar`` and so on; keys count all exported patches from 000000000."""

    by = "shard"
    has_images = True
    owned = r"patches-\d{6,}\.tar"
    opened_by = 'webdataset.WebDataset(sorted(glob.glob("{folder}/*.tar")), shardshuffle=100).decode("torchrgb8")'

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=[(f"patches-{piece.number:06d}.tar", self._parts(piece))])

    def _parts(self, piece: Piece) -> Iterator[bytes]:
        image, facts, size = Header(self.images.suffix), Header("json"), 0
        for batch in piece.batches:
            samples = zip(batch.images(), batch.json_texts(), strict=True)
            for number, (data, line) in enumerate(samples, batch.first):
                text = line.encode()
                parts = image.of(number, len(data)), data, padding(len(data)), facts.of(number, len(text)), text
                sample = b"".join([*parts, padding(len(text))])
                size += len(sample)
                yield sample
        yield end_of_archive(size)


class Header:
    """Headers of members that differ in number and size alone.

    Args:
        suffix: how the members' names end.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        info = tarfile.TarInfo(f"{0:09d}.{suffix}")
        info.mode = 0o644
        self._blank = info.tobuf(tarfile.USTAR_FORMAT)
        # The checksum is the sum of all bytes, its own field counted as blanks.
        self._base = (
            256 + sum(self._blank) - sum(self._blank[148:156]) - sum(self._blank[:9]) - sum(self._blank[124:135])
        )

    def of(self, number: int, size: int) -> bytes:
        """The header of a member, 512 bytes."""
        name, octal = b"%09d" % number, b"%011o" % size
        if len(name) > 9 or len(octal) > 11:
            info = tarfile.TarInfo(f"{number:09d}.{self._suffix}")
            info.size = size
            return info.tobuf(tarfile.USTAR_FORMAT)
        checksum = b"%06o\0 " % (self._base + sum(name) + sum(octal))
        blank = self._blank
        return b"".join([name, blank[9:124], octal, blank[135:148], checksum, blank[156:]])


def end_of_archive(size: int) -> bytes:
    """What follows the members of an archive, that are ``size`` bytes."""
    end = 2 * _BLOCK
    return bytes(end + -(size + end) % tarfile.RECORDSIZE)


def padding(size: int) -> bytes:
    """What fills the last block of a member."""
    return bytes(-size % _BLOCK)
