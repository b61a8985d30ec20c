"""The list of slow tests names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def test_every_slow_test_exists_once() -> None:
    names = (_ROOT / "tests" / "slow.txt").read_text().split()
    assert names == sorted(set(names))
    for name in names:
        path, _, function = name.partition("::")
        assert re.search(rf"^ *def {function}\(", (_ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
            f"{name} is gone: take its line out of tests/slow.txt"
        )
