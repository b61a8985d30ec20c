"""The weights of runs, to compare them."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from labelmerge.train.finished import RunResult


def weights(run: RunResult | Path) -> dict[str, Tensor]:
    """Of a run's newest checkpoint, or of one checkpoint folder."""
    folder = run if isinstance(run, Path) else run.checkpoint
    return safetensors.torch.load_file(folder / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether they are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
