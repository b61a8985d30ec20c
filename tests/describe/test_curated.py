from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from labelmerge.catalog import dataset_names, load_descriptions, load_recipe
from labelmerge.describe.curated import write_curated
from labelmerge.descriptions import Description, read_descriptions, write_descriptions
from labelmerge.errors import DescriptionsError, OutputError, UsageError

Run = Callable[..., Result]


def own_recipe(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_descriptions(
        folder / "words.csv", [Description(0, "kerb", "A kerb.", source="curated"), Description(5, "bin")]
    )
    path = folder / "recipe.toml"
    path.write_text(
        f'name = "{name}"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "words.csv"\n[layout]\n'
    )
    return path


def test_the_shipped_rows_arrive_whole(tmp_path: Path) -> None:
    recipes = [load_recipe("camvid"), load_recipe(own_recipe(tmp_path / "mine", "mine")), load_recipe("camvid")]
    out = tmp_path / "deep" / "out"
    assert write_curated(recipes, out) == [out / "camvid.csv", out / "mine.csv"]
    for recipe in recipes:
        assert read_descriptions(out / f"{recipe.name}.csv") == load_descriptions(recipe)
        assert (out / f"{recipe.name}.csv").read_bytes() == recipe.descriptions.read_bytes()


def test_a_users_work_is_not_replaced(tmp_path: Path) -> None:
    recipes = [load_recipe("kitti"), load_recipe("camvid")]
    write_curated([recipes[1]], tmp_path)
    rows = read_descriptions(tmp_path / "camvid.csv")
    rows[0] = replace(rows[0], description="My sky.")
    write_descriptions(tmp_path / "camvid.csv", rows)
    with pytest.raises(OutputError, match="other descriptions") as caught:
        write_curated(recipes, tmp_path)
    assert caught.value.where == tmp_path / "camvid.csv"
    assert read_descriptions(tmp_path / "camvid.csv") == rows
    assert not (tmp_path / "kitti.csv").exists(), "all or nothing"
    assert len(write_curated(recipes, tmp_path, force=True)) == 2
    assert read_descriptions(tmp_path / "camvid.csv") == load_descriptions(recipes[1])
    assert len(write_curated(recipes, tmp_path)) == 2, "what says the same is no obstacle"


def test_a_damaged_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "camvid.csv").write_text("index\n1\n")
    with pytest.raises(DescriptionsError, match="camvid.csv"):
        write_curated([load_recipe("camvid")], tmp_path)


def test_never_over_the_datasets_own_file(tmp_path: Path) -> None:
    shipped = load_recipe("camvid")
    with pytest.raises(UsageError, match="own descriptions file"):
        write_curated([shipped], shipped.descriptions.parent, force=True)


def test_two_recipes_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two recipes are named 'camvid'"):
        write_curated([load_recipe("camvid"), load_recipe(own_recipe(tmp_path, "camvid"))], tmp_path / "out")


def test_the_command_writes_and_counts(run: Run, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path / "mine", "mine")
    result = run("describe", "camvid", recipe, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Wrote 13 labels in 2 files to {tmp_path / 'out'}; 1 of them have no description yet.\n"
    result = run("describe", "camvid", "--from", "curated", "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == {
        "written": [str(tmp_path / "out" / "camvid.csv")],
        "labels": 11,
        "without_description": 0,
    }


def test_all_means_every_shipped_dataset(run: Run, tmp_path: Path) -> None:
    result = run("describe", "all", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert sorted(path.stem for path in tmp_path.iterdir()) == dataset_names()


def test_the_example_of_the_documentation(run: Run, tmp_path: Path) -> None:
    """A few rows of one's own, without touching the installation."""
    page = (Path(__file__).parents[2] / "docs" / "descriptions.md").read_text(encoding="utf-8")
    example = page.split("```csv\n")[1].split("```")[0]
    (tmp_path / "cityscapes.csv").write_text(example)
    result = run("describe", "cityscapes", "--lint", "--out", tmp_path)
    assert result.exit_code == 0 and result.stdout in page
    shipped = load_descriptions(load_recipe("cityscapes"))
    rows = load_descriptions(load_recipe("cityscapes"), overrides=tmp_path)
    assert [row.name for row in rows] == [row.name for row in shipped]
    assert [row.index for row, ours in zip(rows, shipped, strict=True) if row != ours] == [8, 13]


def test_what_is_wrong_is_said_in_one_line(run: Run, tmp_path: Path) -> None:
    result = run("describe", "citiscapes", "--out", tmp_path)
    assert result.exit_code == 2 and "Did you mean cityscapes" in result.stderr
    result = run("describe", "cityscapes")
    assert result.exit_code == 2 and "Give --out DIR" in result.stderr
    assert run("describe", "--out", tmp_path).exit_code == 2
    (tmp_path / "file").write_text("")
    result = run("describe", "cityscapes", "--out", tmp_path / "file" / "below")
    assert result.exit_code == 1 and "a file is where a folder must go" in result.stderr
