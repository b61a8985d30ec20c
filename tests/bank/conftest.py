"""What embedding's tests use."""

from ..embed.conftest import clip_spec, clip_weights, make_bank, make_dataset

__all__ = ["clip_spec", "clip_weights", "make_bank", "make_dataset"]
