"""Class lists: one name a line, or tables with a column of names; and what merges straight from them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.class_lists import ignored_columns, list_name, read_class_list
from labelmerge.embed.datasets import find_datasets
from labelmerge.errors import DescriptionsError, OutputError, RecipeError, UsageError

Run = Callable[..., Result]


def _file(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "road\n\n  sofa, couch \r\nsky", [("road", ""), ("sofa, couch", ""), ("sky", "")]),
        ("a.txt", "\ufeffroad", [("road", "")]),
        ("a.csv", 'colour,Name\nred,road\nblue,"sofa, couch"\n\n', [("road", ""), ("sofa, couch", "")]),
        ("a.txt", "0: road\n1: sky\n", [("road", ""), ("sky", "")]),
        ("a.txt", '1 road\n3) "sky, heaven"\n', [("road", ""), ("sky, heaven", "")]),
        ("a.txt", "2 road\n2 sky\n", [("2 road", ""), ("2 sky", "")]),  # not numbered
        ("a.txt", "3D printer\nroad\n", [("3D printer", ""), ("road", "")]),
        ("a.txt", "# mine\nName\nroad\n'sky'\n", [("road", ""), ("sky", "")]),
        ("a.txt", "name\n", [("name", "")]),
        ("a.txt", '"sky, heaven"\n', [("sky, heaven", "")]),
        ("a.csv", "class;definition\nroad;What one drives on.\nsky;", [("road", "What one drives on."), ("sky", "")]),
        ("a.tsv", "id\tcategory\n7\troad\n8\tsky\n", [("road", ""), ("sky", "")]),
        ("a.csv", "name\nroad\nsky\n", [("road", ""), ("sky", "")]),
        ("a.csv", "name;meaning\rroad;A way, or two, paved\rsky;\r", [("road", "A way, or two, paved"), ("sky", "")]),
        ("a.txt", "road\rsky\r", [("road", ""), ("sky", "")]),
        ("a.txt", "0\troad\n1\tsky\n", [("road", ""), ("sky", "")]),
        ("a.txt", "index,name\n0,road\n1,sky\n", [("road", ""), ("sky", "")]),
        ("a.txt", "id\tlabel\n4\troad\n6\tsky\n", [("road", ""), ("sky", "")]),
        ("a.txt", "name,description\nroad,A way.\n", [("road", "A way.")]),
    ],
)
def test_a_list_is_read(tmp_path: Path, name: str, text: str, expected: list[tuple[str, str]]) -> None:
    rows = read_class_list(_file(tmp_path / name, text))
    assert [(row.name, row.description) for row in rows] == expected
    assert [row.index for row in rows] == list(range(len(rows)))


def test_a_descriptions_file_keeps_its_indices(tmp_path: Path) -> None:
    path = _file(tmp_path / "mine.csv", "index,name,description\n7,road,A road is a way.\n9,sky,\n")
    assert [(row.index, row.name) for row in read_class_list(path)] == [(7, "road"), (9, "sky")]
    recipe = load_recipe(path)
    assert (recipe.name, recipe.argument) == ("mine", str(path))
    assert [row.index for row in load_descriptions(recipe)] == [7, 9]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.txt", "road\nsky\nroad\n", "line 3: 'road' is on line 1 already"),
        ("a.txt", "\n \n", "a.txt: is empty. Write the names"),
        ("a.csv", "", "a.csv: is empty. Write the names"),
        ("a.csv", "name,description\n", "no names. Write the names"),
        ("a.txt", "road, sky\n", "is one line of names with commas between them. Write one name a line"),
        ("a.txt", "# none\n", "no names"),
        ("a.txt", "road; sky\n", "is one line of names with semicolons between them"),
        ("a.txt", "road\tsky\n", "is one line of names with tabs between them"),
        ("a.txt", "road\tA way\nsky\n", "line 1: several columns, with tabs between them"),
        ("a.csv", "road\nsky\n", "no column is called name"),
        ("a.csv", "id,name\n1,road\n2\n", "line 3"),
        ("a.csv", 'name\n"road\n', "line 2"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(DescriptionsError, match=problem):
        read_class_list(_file(tmp_path / name, text))


def test_columns_that_may_be_meant_as_descriptions_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sense = _file(tmp_path / "a.csv", "class;sense;\nroad;What one drives on.;\n")
    assert ignored_columns(sense) == ["sense"]
    without = ("name\nroad\n", "id,name,definition,sense\n1,road,,\n", "index,name,note\n1,road,\n")
    for number, text in enumerate(without):
        assert ignored_columns(_file(tmp_path / f"b{number}.csv", text)) == []
    assert ignored_columns(_file(tmp_path / "c.txt", "road, sense\n")) == []
    find_datasets([str(sense)])
    assert "these are not used: sense" in caplog.text
    assert ignored_columns(_file(tmp_path / "d.csv", "road\n")) == []  # no table at all, which is said when it is read


def test_what_is_no_dataset_is_told_from_one_that_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    _file(Path("names.json"), "[]")
    with pytest.raises(UsageError, match="photos: is a folder. `labelmerge recipe photos`"):
        load_recipe("photos")
    with pytest.raises(UsageError, match="names.json: is neither a recipe nor a list of class names"):
        load_recipe("names.json")
    Path("mine.toml").write_bytes(b"name = 'stra\xdfe'")
    with pytest.raises(RecipeError, match="mine.toml: is not UTF-8 .byte 12.. Save the file as UTF-8"):
        load_recipe("mine.toml")


def test_a_list_is_called_as_its_file(tmp_path: Path) -> None:
    assert list_name(Path("a/My Straßen-Klassen (v2).csv")) == "my_straen_klassen_v2"
    with pytest.raises(UsageError, match="no letter"):
        list_name(Path("道路.txt"))


def test_merge_begins_with_class_lists_alone(run: Run, tmp_path: Path) -> None:
    mine = _file(tmp_path / "mine.csv", "name\ncar\nbus\npavement\n")
    other = _file(tmp_path / "other.txt", "automobile\nbread\n")
    out = tmp_path / "page"
    for _ in range(2):  # again changes nothing
        result = run("merge", mine, other, "cityscapes", "--out", out)
        assert result.exit_code == 0, result.stderr
        with (out / "taxonomy.csv").open() as stream:
            concepts = {(row["dataset"], row["name"]): row["concepts"] for row in csv.DictReader(stream)}
        assert concepts["mine", "car"] == concepts["other", "automobile"] == concepts["cityscapes", "car"]
        assert concepts["mine", "pavement"] == concepts["cityscapes", "sidewalk"]
        assert concepts["other", "bread"] not in (concepts["cityscapes", "car"], concepts["cityscapes", "sidewalk"])
        assert (out / "merge.html").is_file()
    only = run("merge", "mine", "cityscapes", "--bank", out / "bank", "--out", tmp_path / "two")
    assert only.exit_code == 0, only.stderr
    assert "22 labels" in only.output


def test_a_file_called_as_another_dataset_is_refused(run: Run, tmp_path: Path) -> None:
    mine = _file(tmp_path / "camvid.txt", "car\nroad\n")
    result = run("embed", mine, "--encoder", "offline", "--out", tmp_path / "bank")
    assert result.exit_code == 2
    assert "has other classes (2 here, 11 there)" in result.stderr
    assert not (tmp_path / "bank").exists()


def test_near_files_are_suggested(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _file(tmp_path / "my_streets.toml", "")
    assert "Did you mean my_streets.toml, which lies here?" in run("ls", "my_streets").stderr
    assert "my_streets.toml lies there" in run("ls", "my_street.toml").stderr
    mistyped = run("shard", "my_streets.tml", "--root", tmp_path, "--split", "train", "--out", tmp_path / "out")
    assert mistyped.exit_code == 2
    assert "Did you mean my_streets.toml, which lies here?" in mistyped.stderr
    assert "Known:" not in mistyped.stderr, "a list of all datasets hides the answer"
    _file(tmp_path / "cityscape.toml", "")
    assert "cityscape.toml, which lies here? Did you mean cityscapes" in run("ls", "cityscapez").stderr


def test_a_merge_that_fails_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("no space left on the device")

    mine, out = _file(tmp_path / "mine.txt", "car\nbus\n"), tmp_path / "merge"
    monkeypatch.setattr("labelmerge.plot.merge_page.page.write_merge_page", full)
    assert run("merge", mine, "camvid", "--out", out).exit_code == 1
    assert not out.exists()
    out.mkdir()
    (out / "mine.md").write_text("my notes")
    assert run("merge", mine, "camvid", "--out", out).exit_code == 1
    assert [path.name for path in out.iterdir()] == ["mine.md"]
