"""Every exception that wsicurate raises on purpose.

Each message names the file, the value that was found and what to change. Each class inherits the package's
base and the built-in that fits, so that ``except FileNotFoundError`` works as one would expect::

    WsicurateError
    ├── ConfigError (ValueError)                    a setting that cannot be
    ├── SlideTableError (ValueError)                the slide table is wrong
    ├── SlideError                                  one slide cannot be used; the others can
    │   ├── SlideSkipped                            a rule, not an accident; .reason names the rule
    │   │   ├── NoResolutionError                   no resolution is specified
    │   │   ├── TooCoarseError                      its finest pixels are coarser than the target
    │   │   └── NotBrightfieldError                 dark ground or no colour: not a stained section
    │   ├── SlideNotFoundError (FileNotFoundError)
    │   ├── UnreadableSlideError (OSError)          no reader opens it
    │   ├── UnreadableRegionError (OSError)         it opens, but these pixels cannot be decoded
    │   │   └── UnscannedRegionError                these pixels were never scanned
    │   ├── SlideChangedError (RuntimeError)        not the file that it was when the work began
    │   ├── MaskError                               the tissue mask of another package failed on it
    │   ├── NoPatchesError                          none of its patches can be read, and the store has some
    │   ├── DamagedPatchesError (ValueError)        the store that they are taken from is damaged
    │   ├── SlideTimeoutError (TimeoutError)        it took longer than --slide-timeout
    │   └── WorkerCrashedError (RuntimeError)       reading it killed the process that read it
    ├── StoreError
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── StoreFormatError (ValueError)           not a store, or of a format that is not understood
    │   ├── StoreSettingsError (ValueError)         made with other settings
    │   ├── StoreWriteError (OSError)               full disk, read-only folder
    │   │   └── LinkedPathError                     a link leads out of the store
    │   ├── CorruptStoreError (ValueError)          bytes that do not hold what they should
    │   ├── LeaseLostError (RuntimeError)           another run took the slide over
    │   ├── EmbeddingMissingError (LookupError)     these patches have no vectors by that encoder
    │   └── ManifestError (ValueError)              a manifest that is missing, damaged, or of another store
    ├── EncoderError (ValueError)                   an encoder that cannot do what is asked
    │   ├── EncoderUnavailableError (OSError)       gated, unreachable, or not there
    │   └── EncoderMemoryError (MemoryError)        a batch does not fit into the device's memory
    ├── PatchImportError (ValueError)               patches, coordinates or vectors that cannot be brought in
    ├── CurationError (ValueError)                  more was asked of the patches than they can give
    │   └── VectorError                             vectors that are not finite, zero, or of another length
    └── NothingToDoError (ValueError)               the inputs hold nothing to work on
"""

from __future__ import annotations

import re

#: Most characters of what a library says that a message of ours repeats.
_LONGEST = 500


def in_words(error: BaseException) -> str:
    """What an exception says, for a message or a record: one line of plain words, the same each time.

    Ours are as they are. Of others' the operating system's reason stands alone, without number and path; the addresses
    of objects are left out; and one that says nothing gives its name.
    """
    if isinstance(error, WsicurateError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()} text (byte {error.start:,})"
    words = str(error)
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror
    words = " ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "", words).split())
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
    return words or type(error).__name__


def with_name(error: BaseException) -> str:
    """What an exception is called and says."""
    return f"{type(error).__name__}: {in_words(error)}"


class WsicurateError(Exception):
    """The base of all of them."""


class ConfigError(WsicurateError, ValueError):
    """A setting is out of range, of the wrong type, or contradicts another."""


class SlideTableError(WsicurateError, ValueError):
    """The slide table cannot be read as one; the message names file, line and column."""


class NothingToDoError(WsicurateError, ValueError):
    """The inputs hold nothing to work on: no slide, no patch."""


class SlideError(WsicurateError):
    """One slide cannot be used. ``reason`` is the short word that tables and counts use."""

    reason = "failed"


class SlideSkipped(SlideError):
    """A rule says that this slide is not tiled. Not an accident."""

    reason = "skipped"


class NoResolutionError(SlideSkipped):
    """Neither table, metadata, objective power nor ``--default-mpp`` says how large a pixel is."""

    reason = "no_resolution"


class TooCoarseError(SlideSkipped):
    """The finest level is more than 5% coarser than the target, and upsampling was not asked for."""

    reason = "too_coarse"


class NotBrightfieldError(SlideSkipped):
    """Dark ground or no colour: fluorescence or a single channel, not a stained section."""

    reason = "not_brightfield"


class SlideNotFoundError(SlideError, FileNotFoundError):
    """The slide's file is not there (any more)."""

    reason = "not_found"


class UnreadableSlideError(SlideError, OSError):
    """No reader opens the file."""

    reason = "unreadable"


class UnreadableRegionError(SlideError, OSError):
    """The slide opens, but a region of it cannot be decoded."""

    reason = "unreadable_region"


class UnscannedRegionError(UnreadableRegionError):
    """The region holds pixels that the scanner never made; readers would paint them white."""

    reason = "not_scanned"


class SlideChangedError(SlideError, RuntimeError):
    """The file is not the one that it was when it was surveyed or tiled."""

    reason = "changed"


class MaskError(SlideError):
    """A tissue mask that another package or the caller brought fails on it, or gives something that is no mask."""

    reason = "mask"


class NoPatchesError(SlideError):
    """None of a slide's planned patches could be read, and it would replace patches that the store has of it."""

    reason = "no_patches"


class DamagedPatchesError(SlideError, ValueError):
    """The store that a slide's patches are taken from does not hold them as they were written."""

    reason = "damaged"


class SlideTimeoutError(SlideError, TimeoutError):
    """The work on a slide took longer than the time that it may take."""

    reason = "timeout"


class WorkerCrashedError(SlideError, RuntimeError):
    """The worker process died while it worked on this slide alone."""

    reason = "reader_crashed"


class StoreError(WsicurateError):
    """Something about the store as a whole."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path."""


class StoreFormatError(StoreError, ValueError):
    """The path holds something else, or a store of a format that this version does not read."""


class StoreSettingsError(StoreError, ValueError):
    """The store was made with other settings; the message names each difference."""


class StoreWriteError(StoreError, OSError):
    """The store cannot be written: full disk, file-size limit, read-only folder."""


class LinkedPathError(StoreWriteError):
    """A folder below the store's root is a link; writing or deleting through it could change what is not the store."""


class CorruptStoreError(StoreError, ValueError):
    """Stored bytes fail their checksum or do not decode to what the metadata says."""


class LeaseLostError(StoreError, RuntimeError):
    """Another run holds, or has taken over, the slide that this one was working on."""


class EmbeddingMissingError(StoreError, LookupError):
    """The patches were not embedded with the encoder that is asked for."""


class ManifestError(StoreError, ValueError):
    """A manifest is missing, cannot be read, or is that of another store."""


class EncoderError(WsicurateError, ValueError):
    """An encoder cannot do what is asked: another input size, changed weights, vectors that mean nothing."""


class EncoderUnavailableError(EncoderError, OSError):
    """The encoder's weights are gated, cannot be reached, or are not there."""


class EncoderMemoryError(EncoderError, MemoryError):
    """A batch of patches does not fit into the device's memory."""


class PatchImportError(WsicurateError, ValueError):
    """Patches, coordinates or vectors that others made cannot be brought in; the message names the file."""


class CurationError(WsicurateError, ValueError):
    """More was asked of the patches than they can give: clusters, budget, seeds, an independent evaluation encoder."""


class VectorError(CurationError):
    """Vectors are not finite, zero, or of another length than expected."""
