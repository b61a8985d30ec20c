"""What the tests of readers of JSON and CSV files share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


SIZE = (12, 16)


CATEGORIES = [{"id": 9, "name": " Sky"}, {"id": 3, "name": "road"}, {"id": 4, "name": "car"}]
