"""What the merge's tests use."""

from ..merge.conftest import angle_bank
from .opened import browser, page, pages, tab

__all__ = ["angle_bank", "browser", "page", "pages", "tab"]
