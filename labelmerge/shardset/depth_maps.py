"""Depth maps: what the values of ``depth.png`` mean.

A depth is the distance along the camera's axis, and grows with it. The member holds 16-bit values: 0 where the depth is
not known, else a whole number of the unit that the manifest names.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.shardset.pixels import Region, decode_mask

DEPTH = "depth.png"
UNKNOWN = 0
MOST = 65535
"""The largest depth that fits."""

RELATIVE = "relative"
"""The unit of depths that are right up to a factor, which may differ from image to image."""

UNITS = f"m, cm, mm, m/N (N values are a metre, as in m/256) or {RELATIVE}"
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_PART = re.compile(r"m/([1-9][0-9]{0,5})")

DepthMap = npt.NDArray[np.uint16]


def metres(unit: str) -> float | None:
    """How many metres a value of 1 is; None for relative depths. Raises ValueError where there is no such unit."""
    if unit == RELATIVE:
        return None
    if unit in _METRES:
        return _METRES[unit]
    if (part := _PART.fullmatch(unit)) is not None:
        return 1 / int(part[1])
    raise ValueError(f"unknown unit {unit!r} of depths: it must be {UNITS}")


def decode_depth(data: bytes, size: tuple[int, int], region: Region | None = None) -> DepthMap:
    """The member's values, uint16 ``[H, W]``, or a part of them.

    Args:
        size: height and width that it must have.
        region: left, top, right, bottom in pixels, within it; None for all of it.

    Raises:
        SampleError: it is damaged, of another size, or not of 16 bits.
        What Pillow raises at files that are none of its own.
    """
    values = decode_mask(data, DEPTH, size, region)
    if values.dtype != np.uint16:
        raise SampleError(f"{DEPTH} is {values.dtype}, not uint16")
    return values.astype(np.uint16, copy=False)


def depth_problem(manifest: dict[str, Any]) -> str | None:
    """What is wrong with what a manifest says of depths; None where nothing is."""
    said = manifest.get("depth")
    if (said is None) != (DEPTH not in manifest["members"]):
        return f"'depth' must be there where 'members' lists {DEPTH}, and only there"
    if said is None:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("unit"), str):
        return "'depth' names no unit"
    known = said.get("known_pixels")
    if type(known) is not int or known < 0:
        return "'depth' counts no known pixels"
    try:
        metres(said["unit"])
    except ValueError as error:
        return f"depth: {error}"
    return None
