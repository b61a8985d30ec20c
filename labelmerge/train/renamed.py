"""Settings that had other names in older versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their present names: `mapping` became `taxonomy`, and `merge`'s ``embedding`` became ``text``."""
    now = {"taxonomy" if key == "mapping" else key: value for key, value in values.items()}
    if now.get("merge") == "embedding":
        now["merge"] = "concepts" if now.get("taxonomy") else "text"
    if "label_space" in now:
        space = now.pop("label_space")
        now.setdefault("negatives", {"union": "all", "dataset": "own"}.get(space, space))
    return now
