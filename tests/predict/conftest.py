"""What evaluation's tests use."""

from ..evaluate.conftest import small, tools

__all__ = ["small", "tools"]
