"""What embedding's and training's tests use."""

from ..embed.conftest import clip_spec, clip_weights, make_bank, make_dataset
from ..train.conftest import shards

__all__ = ["clip_spec", "clip_weights", "make_bank", "make_dataset", "shards"]
