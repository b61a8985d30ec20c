from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.clip_tokens import count_clip_tokens
from labelmerge.describe.lint import lint
from labelmerge.descriptions import Description, write_descriptions
from labelmerge.names import sentence

GOOD = Description(0, "car", "A car is a road vehicle.", source="curated")


def words(text: str) -> int:
    return len(text.split())


def kinds(*rows: Description) -> list[tuple[int, str]]:
    return [(problem.index, problem.kind) for problem in lint(rows, count_tokens=words, max_tokens=20)]


def test_nothing_to_say_about_sound_rows() -> None:
    fetched = Description(
        1, "bus", "A bus is a big car.", "Bus", "wikipedia", "12", "https://x", "CC BY-SA 4.0", "2025-01-01"
    )
    theirs = Description(2, "van", "A van is a kind of truck.", source="our wiki", licence="CC0")
    own = Description(3, "tram", "A tram is a train in a street.")
    mass = Description(4, "snowboard", "A snowboard is sports gear, on which people ride down snow.")
    assert kinds(GOOD, fetched, theirs, own, mass) == []


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("A snowboard is sports gear, ridden on snow.", True),
        ("A helmet is body armour that covers the head.", True),
        ("A snowboard is very big, and long.", False),
        ("A snowboard is often seen, in winter.", False),
        ("A snowboard is painted white.", False),
        ("A snowboard is big.", False),
    ],
)
def test_a_kind_may_go_without_an_article(text: str, sound: bool) -> None:
    row = Description(0, "snowboard", text, source="curated")
    assert kinds(row) == ([] if sound else [(0, "no category")])


def test_tokens_are_counted_as_open_clip_makes_them() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    rows = [row for name in ("ade20k", "objects365") for row in load_descriptions(load_recipe(name))]
    texts = [sentence(row.name, row.description) for row in rows]
    texts += ["", "it's we've I'll 3.14", "Müller's <b>über</b> &amp; 日本語 🚗!!", "ﬁne “quotes” <end_of_text>"]
    assert [count_clip_tokens(text) for text in texts] == [len(tokenizer.encode(text)) + 2 for text in texts]


def test_lint_needs_no_torch() -> None:
    code = (
        "import sys; from labelmerge.cli.main import cli; cli(['describe', 'camvid', '--lint'], standalone_mode=False)"
    )
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (Description(1, "bus"), "missing"),
        (Description(1, "bus", "  "), "missing"),
        (Description(1, "bus", "Bus", source="curated"), "bare"),
        (Description(1, "bus, coach", "An image of bus.", source="curated"), "bare"),
        (Description(1, "bus", "bus: an image of bus.", source="curated"), "bare"),
        (Description(1, "bus, coach", "This is a photo of a bus.", source="curated"), "bare"),
        (Description(1, "bus", "A bus is a " + "very " * 20 + "big thing.", source="curated"), "long"),
        (Description(1, "bus", "A bus is big and yellow.", source="curated"), "no category"),
        (Description(1, "bus", "Seen on roads everywhere, with passengers.", source="curated"), "no category"),
        (Description(1, "bus", "Often found on roads. A bus is a vehicle.", source="curated"), "no category"),
        (Description(1, "auto", "A car is  a road vehicle.", source="curated"), "duplicate text"),
        (Description(0, "bus", "A bus is a big thing.", source="curated"), "duplicate index"),
        (Description(1, "bus", "A bus is a big thing.", url="https://x"), "source"),
        (Description(1, "bus", "A bus is a big thing.", source="our wiki"), "source"),
        (Description(1, "bus", "A bus is a big thing.", source="wikipedia", licence="CC BY-SA 4.0"), "source"),
    ],
)
def test_each_kind_of_problem(row: Description, kind: str) -> None:
    assert kinds(GOOD, row) == [(row.index, kind)]


@pytest.mark.parametrize(
    "text",
    [
        "Grass is low green plants.",
        "Scissors are a hand tool with two blades.",
        "The sky is the open air.",
        "A set of chairs is a group of seats.",
        "A car that is parked is a vehicle at rest.",
        "A St. Bernard is a very big dog.",
        "A tall plant with a trunk of wood.",
        "Ein Bus ist ein großes Fahrzeug.",
        "バスは大きな車である。",
    ],
)
def test_openings_that_name_a_category(text: str) -> None:
    assert kinds(Description(1, "x", text, source="curated")) == []


def test_texts_that_differ_in_a_word_or_two() -> None:
    text = "An arrow is a mark for drivers who turn to the {}."
    rows = [Description(i, side, text.format(side), source="curated") for i, side in enumerate(["left", "right"])]
    assert kinds(*rows) == [(1, "near text")]
    other = Description(1, "dash", "A dashed line is a mark on the road that drivers may cross.", source="curated")
    assert kinds(rows[0], other) == []


def test_length_counts_the_whole_sentence_in_clip_tokens() -> None:
    text = "A bus is a road vehicle" + " with wheels" * 22 + "."
    assert [problem.what for problem in lint([Description(0, "bus", text, source="curated")])] == []
    (problem,) = lint([Description(0, "double decker bus, coach, omnibus", text[:-1] + " too now.", source="curated")])
    assert problem.kind == "long" and "60 are allowed" in problem.what
    assert lint([Description(0, "double decker bus", text, source="curated")], max_tokens=77) == []


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
    (tmp_path / "cityscape.csv").write_text("index,name\n0,road\n")
    result = run("describe", "camvid", "--lint", "--out", tmp_path)
    assert result.exit_code == 0 and f"{tmp_path / 'cityscape.csv'}, {tmp_path / 'cityscapes.csv'}\n" in result.stdout
    (tmp_path / "camvid.csv").write_text("index,name\n0,Sky\n0,Sky\n")
    result = run("describe", "camvid", "cityscapes", "--lint", "--out", tmp_path, "--json")
    assert result.exit_code == 1
    assert [problem["kind"] for problem in json.loads(result.stdout)["problems"]] == ["malformed", "bare"]


def test_what_cannot_go_with_it_is_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("describe", "camvid", "--lint", "--out", tmp_path / "tpyo")
    assert result.exit_code == 2 and "no such folder" in result.stderr
    for option in (("--from", "wikipedia"), ("--force",)):
        result = run("describe", "camvid", "--lint", *option)
        assert result.exit_code == 2 and "--lint writes nothing" in result.stderr
    result = run("describe", "camvid", "--out", tmp_path, "--max-tokens", 20)
    assert result.exit_code == 2 and "--max-tokens goes with" in result.stderr


def test_the_command_counts_as_an_encoder_does(run: Callable[..., Result]) -> None:
    assert run("describe", "cityscapes", "--lint", "--max-tokens", 20).exit_code == 1
    result = run("describe", "cityscapes", "--lint", "--encoder", "no such encoder")
    assert result.exit_code in (1, 2) and "no such encoder" in result.stderr
    result = run("describe", "cityscapes", "--encoder", "offline", "--out", "x")
    assert result.exit_code == 2 and "goes with --lint" in result.stderr
