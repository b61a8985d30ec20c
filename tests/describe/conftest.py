"""The server that all tests of fetching use."""

from .wiki import wiki

__all__ = ["wiki"]
