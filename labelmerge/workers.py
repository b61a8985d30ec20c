"""Processes that work for this one, and end when it does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.synchronize import Event

from labelmerge.errors import LabelmergeError

_stop: Event


@contextmanager
def worker_pool(
    workers: int, fix: str, setup: Callable[..., object] | None = None, *args: object
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; at the end of the block, also by an error, they are asked to stop, and are waited for.

    Args:
        workers: how many.
        fix: what a user can do where one dies.
        setup: what each calls first, with `args`.

    Raises:
        LabelmergeError: a worker died.
    """
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # it lets interrupts in as it starts
    with interrupts_held_back():  # in between, a lock would exist that nobody knows to remove
        stop = context.Event()
        pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(stop, setup, args))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise LabelmergeError("a worker process died, perhaps for lack of memory", fix=fix) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Deliver Ctrl-C afterwards, and never to processes started here: the whole group gets it, the parent decides."""
    came: list[int] = []
    # A mask is inherited by processes, but this one still hears of a signal that another of its threads was given.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if handler is not None:
        signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


def stopping() -> bool:
    """In a worker: whether the parent has asked it to stop."""
    return _stop.is_set()


def _start(stop: Event, setup: Callable[..., object] | None, args: tuple[object, ...]) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if setup is not None:
        setup(*args)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
