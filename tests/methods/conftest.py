"""What training's tests use."""

from ..train.conftest import bank, one_thread, shards

__all__ = ["bank", "one_thread", "shards"]
