"""Small MATLAB files, and images beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

Array = npt.NDArray[Any]


Samples = Callable[[Path], dict[str, dict[str, Any]]]


SIZE = (6, 8)


def mat(path: Path, /, _compress: bool = True, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content, do_compression=_compress)


def cells(texts: Sequence[Any], column: bool = False) -> Array:
    found = np.empty((len(texts), 1) if column else (1, len(texts)), dtype=object)
    found.ravel()[:] = texts
    return found
