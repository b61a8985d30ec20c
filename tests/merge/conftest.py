"""Small banks whose vectors are angles, and what embedding's and training's tests use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelKey
from labelmerge.names import PROMPT_TEMPLATE, sentence

from ..embed.conftest import clip_spec, clip_weights, make_bank, make_dataset
from ..train.conftest import shards

__all__ = ["angle_bank", "clip_spec", "clip_weights", "make_bank", "make_dataset", "shards"]

AngleBank = Callable[[Mapping[LabelKey, tuple[str, str, float]]], Bank]


@pytest.fixture
def angle_bank() -> AngleBank:
    """A bank from `{(dataset, index): (name, description, degrees)}`, of vectors in a plane."""

    def make(rows: Mapping[LabelKey, tuple[str, str, float]]) -> Bank:
        keys = sorted(rows)
        angles = np.radians([rows[key][2] for key in keys])
        return Bank(
            encoder="made",
            identity={"model": "made"},
            prompt=PROMPT_TEMPLATE,
            keys=keys,
            names=[rows[key][0] for key in keys],
            texts=[sentence(rows[key][0], rows[key][1]) for key in keys],
            vectors=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
            tokens=[3] * len(keys),
            truncated=[False] * len(keys),
        )

    return make
