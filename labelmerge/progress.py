"""How long library calls tell how far they are: a caller may pass its own `Track`; the command line passes tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable to show progress: `track(things, "writing shards", total)`."""

    def __call__(self, things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]: ...


def no_track(things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
    """The silent default."""
    return things


def once(work: Callable[[], T], what: str, track: Track) -> T:
    """The result of one piece of work, which takes its time and is shown meanwhile."""
    (found,) = [work() for _ in track((None,), what, 1)]
    return found
