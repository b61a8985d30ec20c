"""How an image is shown to the model: at which sizes, whole or in windows, mirrored or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from labelmerge.errors import UsageError

_SMALLEST_SCALE, _LARGEST_SCALE = 0.05, 16  # beyond these a view shows nothing of an image, or fills any memory
_SMALLEST_EDGE = 8  # pixels of a view that is scaled down


@dataclass(frozen=True)
class View:
    """An image at one size, cut into windows that lie in rows and columns and may overlap.

    Attributes:
        height, width: pixels of the view.
        mirror: the model sees the mirror image of every window.
        tops, lefts: where windows begin, ascending; every top goes with every left.
        window_height, window_width: of each window.
    """

    height: int
    width: int
    mirror: bool
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    window_height: int
    window_width: int

    @property
    def whole(self) -> bool:
        """The one window is the view."""
        return len(self.tops) * len(self.lefts) == 1


@dataclass(frozen=True)
class Views:
    """How every image is shown to the model: the one set of options of all that predicts.

    Attributes:
        short_edge: pixels of the short edge at scale 1, up or down; 0 keeps the image's own size. None: what the run
            was trained at; by itself, the image's own size.
        scales: factors on that size; more than one are averaged.
        flip: also every scale's mirror image.
        window: side of the square windows that slide over each view, pixels; 0: the whole view at once.
        window_stride: from one window to the next, as a share of `window`.
        max_long_edge: no view is longer than this many pixels (extreme panoramas, little memory); 0: no limit.
    """

    short_edge: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int = 0
    window_stride: float = 2 / 3
    max_long_edge: int = 0

    def __post_init__(self) -> None:
        if not self.scales or not all(_SMALLEST_SCALE <= scale <= _LARGEST_SCALE for scale in self.scales):
            raise UsageError(
                f"scales must be numbers from {_SMALLEST_SCALE} to {_LARGEST_SCALE}, not "
                f"{', '.join(map(str, self.scales))}"
            )
        smallest = (self.short_edge or math.inf) * min(1.0, *self.scales)
        if min(self.scales) < 1 and 0 < smallest < _SMALLEST_EDGE:
            raise UsageError(
                f"a short edge of {self.short_edge} pixels at scale {min(self.scales):g} is {smallest:g}, in which no "
                "network sees anything",
                fix=f"Choose sizes of {_SMALLEST_EDGE} pixels and more",
            )
        if min(self.short_edge or 0, self.max_long_edge, self.window) < 0:
            raise UsageError("an edge can't have fewer than 0 pixels")
        if not self.window and self.window_stride != Views.window_stride:
            raise UsageError("a window stride means nothing without a window", fix="Give --window too")
        if not 0 < self.window_stride <= 1:
            raise UsageError(
                f"a window stride of {self.window_stride:g} windows is not above 0 and up to 1",
                fix="Larger ones would leave pixels out; 2/3 is usual",
            )

    def at(self, short_edge: int) -> Views:
        """The same at this short edge."""
        return replace(self, short_edge=short_edge)

    @property
    def several(self) -> bool:
        """Whether probabilities of more than one view are averaged."""
        return len(self.scales) > 1 or self.flip

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of the view at each scale."""
        base = self.short_edge / min(height, width) if self.short_edge else 1.0
        limit = self.max_long_edge / max(height, width) if self.max_long_edge else math.inf
        factors = [min(base * scale, limit) for scale in self.scales]
        return [(max(1, round(height * factor)), max(1, round(width * factor))) for factor in factors]

    def of(self, height: int, width: int) -> Iterator[View]:
        """The views of an image of this size."""
        for view_height, view_width in self.sizes(height, width):
            down, across = (min(self.window, edge) if self.window else edge for edge in (view_height, view_width))
            step = max(1, math.ceil(self.window * self.window_stride - 1e-9))
            for mirror in (False, True) if self.flip else (False,):
                yield View(
                    height=view_height,
                    width=view_width,
                    mirror=mirror,
                    tops=window_starts(view_height, down, step),
                    lefts=window_starts(view_width, across, step),
                    window_height=down,
                    window_width=across,
                )

    def to_json(self) -> dict[str, Any]:
        """As in results.json and beside predictions."""
        return {
            "crop": "sliding window" if self.window else "whole image",
            "window": self.window,
            "window_stride": self.window_stride if self.window else None,
            "short_edge": self.short_edge or 0,
            "scales": list(self.scales),
            "flip": self.flip,
            **({"max_long_edge": self.max_long_edge} if self.max_long_edge else {}),
        }


def window_starts(length: int, window: int, step: int) -> tuple[int, ...]:
    """Where windows of `window` pixels begin along `length` ≥ `window` pixels, ascending.

    They are `step` ≤ `window` apart, but for the last, which ends where the image does: every pixel is in at least one.
    """
    return (*range(0, length - window, step), length - window)
