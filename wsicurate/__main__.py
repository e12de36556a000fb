"""``python -m wsicurate``, and the command ``wsicurate``: signals first, then everything that takes time to import."""

import os
import signal
from types import FrameType

#: Signals that ask the command to end.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Before anything is begun there is nothing to tidy up."""
    os._exit(128 + number)


def main() -> None:
    """Entry point of the command."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and jobs in the background
            signal.signal(number, _end_at_once)
    from wsicurate.streams import fill_closed_descriptors, silence_libraries

    fill_closed_descriptors()
    from wsicurate.cli import app

    silence_libraries()
    try:
        app()
    finally:
        for number in _ENDING:  # all is done and said: the interpreter's own end is not to change the status
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
