"""What the merge's tests use."""

from ..merge.conftest import angle_bank

__all__ = ["angle_bank"]
