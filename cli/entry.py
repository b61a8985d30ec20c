"""The entry point of the installed command: what comes before the command line is read, and signals that end it."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Run the command line; end in order on Ctrl-C and SIGTERM, so that temporary files and workers go, too."""
    try:
        _end_in_order()
        from .main import main as run  # takes a fifth of a second, in which somebody may have seen the mistake
    except KeyboardInterrupt:
        print("\nAborted!", file=sys.stderr)
        sys.exit(1)
    run()


def _end_in_order() -> None:
    """Leave by an exception where SIGTERM or a lost terminal would end the process on the spot.

    torchrun's processes are left alone: one that waits for the others would notice after minutes.
    """
    owner = os.getpid()

    def end(number: int, _: object) -> NoReturn:
        if os.getpid() != owner:  # a process that was forked off
            os._exit(128 + number)
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice is in a hurry
        print("\nTerminated!", file=sys.stderr)
        sys.exit(128 + number)

    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, end)
