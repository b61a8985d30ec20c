from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labelmerge.describe.files import Description, write_descriptions
from labelmerge.describe.lint import lint

GOOD = Description(0, "car", "A car is a road vehicle.", source="curated")


def words(text: str) -> int:
    return len(text.split())


def kinds(*rows: Description) -> list[tuple[int, str]]:
    return [(problem.index, problem.kind) for problem in lint(rows, count_tokens=words, max_tokens=20)]


def test_nothing_to_say_about_sound_rows() -> None:
    fetched = Description(
        1, "bus", "A bus is big.", "Bus", "wikipedia", "12", "https://x", "CC BY-SA 4.0", "2025-01-01"
    )
    theirs = Description(2, "van", "A van is a box.", source="our wiki", licence="CC0")
    assert kinds(GOOD, fetched, theirs) == []


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (Description(1, "bus"), "missing"),
        (Description(1, "bus", "  "), "missing"),
        (Description(1, "bus", "Bus", source="curated"), "bare"),
        (Description(1, "bus, coach", "An image of bus.", source="curated"), "bare"),
        (Description(1, "bus", "bus: an image of bus.", source="curated"), "bare"),
        (Description(1, "bus", "A bus " + "is big " * 20, source="curated"), "long"),
        (Description(1, "auto", "A car is  a road vehicle.", source="curated"), "duplicate text"),
        (Description(0, "bus", "A bus is big.", source="curated"), "duplicate index"),
        (Description(1, "bus", "A bus is big."), "source"),
        (Description(1, "bus", "A bus is big.", source="our wiki"), "source"),
        (Description(1, "bus", "A bus is big.", source="wikipedia", licence="CC BY-SA 4.0"), "source"),
    ],
)
def test_each_kind_of_problem(row: Description, kind: str) -> None:
    assert kinds(GOOD, row) == [(row.index, kind)]


def test_rows_without_text_are_no_duplicates() -> None:
    assert kinds(Description(0, "a"), Description(1, "b")) == [(0, "missing"), (1, "missing")]


def test_the_command_lists_them(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("describe", "cityscapes", "--lint").stdout == "0 problems in the descriptions of cityscapes.\n"
    write_descriptions(tmp_path / "cityscapes.csv", [Description(0, "road", "Road.", source="curated")])
    result = run("describe", "cityscapes", "camvid", "--lint", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stdout == (
        "cityscapes 0 'road' has a description that says no more than the caption\n"
        "1 problem in the descriptions of cityscapes, camvid.\n"
    )
    result = run("describe", "cityscapes", "--lint", "--out", tmp_path, "--json")
    assert [problem["kind"] for problem in json.loads(result.stdout)["problems"]] == ["bare"]
