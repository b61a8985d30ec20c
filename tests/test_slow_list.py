"""The list of slow tests names only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def test_every_slow_test_exists() -> None:
    names = (_ROOT / "tests" / "slow.txt").read_text().split()
    assert names == sorted(set(names))
    gone = []
    for name in names:
        path, _, function = name.partition("::")
        text = (_ROOT / path).read_text(encoding="utf-8") if (_ROOT / path).is_file() else ""
        if not re.search(rf"^ *def {function}\(", text, re.MULTILINE):
            gone.append(name)
    assert not gone, "moved or removed: mend these lines of tests/slow.txt"
