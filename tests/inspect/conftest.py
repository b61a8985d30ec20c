"""What sharding's tests use."""

from ..sharding.conftest import new_own, own, read_samples

__all__ = ["new_own", "own", "read_samples"]
