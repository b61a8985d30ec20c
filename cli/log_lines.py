"""Progress where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

import click

T = TypeVar("T")

SECONDS_BETWEEN = 60.0


class LogLines(Generic[T]):
    """An iterable that shows its progress in a log file (labelmerge.progress.Track): a short line a minute."""

    def __init__(self, things: Iterable[T], what: str, total: int | None) -> None:
        self._things, self._what, self._more = things, what, ""
        self._total = total if total is not None else len(things) if isinstance(things, Sized) else None

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        """What else the lines say, as tqdm takes it."""
        self._more = f", {text}" if text else ""

    def __iter__(self) -> Iterator[T]:
        began = last = time.monotonic()
        for done, thing in enumerate(self._things, 1):
            yield thing
            if (now := time.monotonic()) - last >= SECONDS_BETWEEN:
                last = now
                share = f" of {self._total:,} ({done / self._total:.0%})" if self._total else ""
                left = f", about {span((now - began) / done * (self._total - done))} left" if self._total else ""
                click.echo(f"{self._what}: {done:,}{share}, {span(now - began)}{left}{self._more}", err=True)


def span(seconds: float) -> str:
    """As people say it: ``4 min``, ``3.5 h``, ``2.1 days``."""
    minutes = seconds / 60
    if minutes < 90:
        return f"{max(minutes, 1):.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.1f} days"
