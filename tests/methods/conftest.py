"""What training's tests use."""

from ..train.conftest import bank, shards, small

__all__ = ["bank", "shards", "small"]
