"""Ctrl-C while processes are started: it waits, whichever thread the system tells of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from labelmerge.workers import interrupts_held_back


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)  # a thread with the signal unmasked, as numerical libraries have
    other.start()
    before, reached = signal.signal(signal.SIGINT, signal.default_int_handler), False
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(0.05)
            reached = True
        assert reached
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGINT, before)
        over.set()
        other.join()


def test_processes_started_meanwhile_do_not_hear_it() -> None:
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with interrupts_held_back():
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"True\n"


def test_an_error_in_the_block_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts_held_back():
        raise ValueError("mine")
