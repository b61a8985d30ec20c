"""How long library calls tell how far they are: a caller may pass its own `Track`; the command line passes tqdm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable to show progress: `track(things, "writing shards", total)`."""

    def __call__(self, things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]: ...


def no_track(things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
    """The silent default."""
    return things
