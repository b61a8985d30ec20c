"""Settings: one declaration, and everything that is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from labelmerge.errors import ConfigError
from labelmerge.settings import grouped, parse, problems, refuse, setting, settings_of, summary, table, values_of


@dataclass(frozen=True)
class Kitchen:
    cooks: int = setting(2, "How many cook.", group="people", minimum=1, maximum=5, flag=True)
    heat: float = setting(0.5, "How hot.", group="oven", above=0, below=1)
    rush: float = setting(0.0, "How fast.", group="people")
    dish: str = setting("soup", "What is cooked.", group="oven", choices=("soup", "stew"))
    courses: tuple[str, ...] = setting(("first",), "What is served.", choices=("first", "last"))
    stock: Mapping[str, int] = setting({"salt": 1}, "What there is.", group="people")
    open: bool = setting(True, "Whether guests come.")
    note: str = setting("", "Anything.")
    guests: object = None

    def __post_init__(self) -> None:
        refuse(problems(self))


def test_a_declaration_is_data() -> None:
    cooks, heat, *_ = declared = settings_of(Kitchen)
    assert [each.name for each in declared] == ["cooks", "heat", "rush", "dish", "courses", "stock", "open", "note"]
    assert (cooks.kind, cooks.default, cooks.flag, cooks.bounds) == (int, 2, True, "within 1 to 5")
    assert (heat.kind, heat.flag, heat.bounds) == (float, False, "above 0 and below 1")
    assert {title: [each.name for each in group] for title, group in grouped(declared).items()} == {
        "people": ["cooks", "rush", "stock", "open", "note"],
        "oven": ["heat", "dish", "courses"],
    }


def test_values_are_read_in_their_types_and_all_problems_told() -> None:
    given = {"cooks": 3, "heat": 0.25, "rush": 2, "courses": "first, last", "stock": {"oil": 2}, "open": False}
    right, wrong = parse(settings_of(Kitchen), given)
    assert not wrong and right == {**given, "courses": ("first", "last")} and isinstance(right["rush"], float)
    assert values_of(Kitchen(**right)) == {**given, "courses": ["first", "last"], "dish": "soup", "note": ""}

    right, wrong = parse(
        settings_of(Kitchen),
        {"cooks": 6, "heat": 0, "rush": math.nan, "dish": "pie", "courses": [], "stock": 1, "open": 1, "coks": 1},
    )
    assert right == {}
    assert wrong == [
        "cooks must be within 1 to 5, not 6",
        "heat must be above 0 and below 1, not 0.0",
        "rush must be at least 0, not nan",
        "dish must be one of soup, stew, not 'pie'",
        "courses must be some of first, last, not []",
        "stock must be a table of whole numbers, not 1",
        "open must be true or false, not 1",
        "unknown setting 'coks' (Did you mean cooks?)",
    ]


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_only_whole_numbers_are_whole_numbers(value: object) -> None:
    assert parse(settings_of(Kitchen), {"cooks": value})[1] == [f"cooks must be a whole number, not {value!r}"]


def test_an_instance_checks_itself() -> None:
    with pytest.raises(ConfigError, match="cooks must be within 1 to 5, not 0; courses must be some of first, last"):
        Kitchen(cooks=0, courses=("first", "first"))
    assert Kitchen().stock is not Kitchen().stock  # no instance shares a table with another


def test_summary_and_table() -> None:
    groups = grouped(settings_of(Kitchen))
    assert summary(groups, values_of(Kitchen())) == [
        "people cooks=2  rush=0.0  stock={'salt': 1}  open=True  note=\"\"",
        "oven   heat=0.5  dish=soup  courses=['first']",
    ]
    assert table(groups["people"], {"feast": {"cooks": 5, "rush": 0.0, "stock": {}}}) == [
        "| key | means | values | default | presets |",
        "|---|---|---|---|---|",
        "| **`cooks`** | How many cook. | whole, within 1 to 5 | 2 | feast: 5 |",
        "| `rush` | How fast. | at least 0 | 0 | |",
        "| `stock` | What there is. | table of whole numbers | salt = 1 | feast: none |",
        "| `open` | Whether guests come. | true, false | true | |",
        "| `note` | Anything. | text | none | |",
    ]
    assert "| some of `first`, `last` | `first` | |" in table(groups["oven"], {})[-1]
