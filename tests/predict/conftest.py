"""What evaluation's tests use."""

from ..evaluate.conftest import one_thread, tools

__all__ = ["one_thread", "tools"]
