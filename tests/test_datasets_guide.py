"""docs/datasets.md: every dataset has a section, its commands can be given as they stand, its trees are recognised."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from labelmerge.catalog import SPLITS, dataset_names, load_label_space, load_recipe
from labelmerge.errors import LayoutError
from labelmerge.sharding.source.layout import find, mask_wildcards, pair, places
from labelmerge.sharding.source.locate import NoLabels, open_source
from labelmerge.sharding.source.source import Item, Skip, Source

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "datasets.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^#{1,2} |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
_BLOCKS = re.findall(r"^```(console|bash)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.removeprefix("$ ")
    for _, block in _BLOCKS
    for line in block.splitlines()
    if line.startswith(("$ ", "labelmerge"))
]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| [`")]

_ONE_FILE_EACH = ("index_png", "colour_png", "ade20k_seg", "polygons", "mat")
_FILE_OF_EACH = ("masks", "polygons", "instances")
# Files whose content decides how the rest is read.
_READ_AT_ONCE = {"class-descriptions-boxable.csv": "/m/01g317,Person\n", "classes-segmentation.txt": "/m/01g317\n"}


class Tree(NamedTuple):
    """A tree of the page: whose, under which root, which layout `--check` is said to print, and its files."""

    dataset: str
    root: str
    variant: str | None
    files: list[str]


def _trees() -> list[Tree]:
    trees = []
    for dataset, section in SECTIONS.items():
        for block in re.findall(r"```text\n(.*?)```", section, flags=re.DOTALL):
            first, *rest = block.splitlines()
            root, _, about = first.partition(" ")
            variant = about.strip().removeprefix("layout: ") or None
            trees.append(Tree(dataset, root, variant, [line.split("   ")[0] for line in (row[2:] for row in rest)]))
    return trees


TREES = _trees()


def test_every_dataset_has_a_section_with_a_tree_and_commands_and_no_other_has() -> None:
    assert sorted(SECTIONS) == dataset_names()
    assert {tree.dataset for tree in TREES} == set(SECTIONS)
    for name, section in SECTIONS.items():
        recipe = load_recipe(name)
        labelled = {split for split in SPLITS if recipe.splits.get(split, split)}
        commands = [
            shlex.split(line) for line in re.findall(r"^\$ labelmerge (shard .+)$", section, flags=re.MULTILINE)
        ]
        assert all(command[1] == name for command in commands)
        assert "--check" in commands[0] and all("--check" not in command for command in commands[1:])
        written = [command[command.index("--split") + 1] for command in commands[1:]]
        # Where two names mean one split of the dataset, the page shows one of them.
        words = [recipe.splits.get(split, split) for split in written]
        assert set(written) <= labelled and len(set(words)) == len(words)
        all_words = {recipe.splits.get(split, split) for split in labelled}
        # Who compares with published numbers needs one split.
        assert set(words) == all_words or (recipe.role == "eval" and "val" in written)
        root = commands[0][commands[0].index("--root") + 1]
        assert any(tree.dataset == name and tree.root.rstrip("/") == root for tree in TREES)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, verb, *arguments = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "16"))
    assert program == "labelmerge"
    monkeypatch.chdir(tmp_path)
    for argument in arguments:
        if argument.startswith("shards-out"):  # what is verified or exported must be there
            Path(argument).mkdir(parents=True)
    command = import_module(f"labelmerge.cli.{verb}").command
    assert isinstance(command, click.Command)
    given = command.make_context(verb, arguments).params
    if verb != "shard":
        return
    recipe = load_recipe(given["dataset"])
    assert given["check"] or (given["split"] and given["out"])
    assert given["split"] is None or recipe.splits.get(given["split"], given["split"])
    assert given["short_edge"] is None or given["image_format"] == "jpg"
    assert given["box_teacher"] is None or recipe.annotation_type == "box"


@pytest.mark.parametrize("tree", TREES, ids=[f"{tree.dataset}-{tree.root.split('/')[-2]}" for tree in TREES])
def test_trees_are_recognised_and_hold_nothing_that_is_not_read(tree: Tree, tmp_path: Path) -> None:
    for file in tree.files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(_READ_AT_ONCE.get(file, ""))
    found = []
    for split in SPLITS:
        with suppress(LayoutError, NoLabels):  # a tree need not show every split
            found.append(open_source(load_recipe(tree.dataset), tmp_path, split))
    assert found[0].variant == tree.variant
    sources = [source for source in found if source.variant == tree.variant]
    assert {path for source in sources for path in _read(source)} == set(tree.files)
    if sources[0].reader in _ONE_FILE_EACH:
        paired = [entry for source in sources for key in _FILE_OF_EACH for entry in _pairs(source, key)]
        assert paired and all(isinstance(entry, Item) for entry in paired), paired


def _pairs(source: Source, key: str) -> Iterator[Item | Skip]:
    """The images with the file of each, or what is amiss; images that a list would have to name are taken for named."""
    if key in source.layout:
        layout = {name: value for name, value in source.layout.items() if name not in ("list", "stems")}
        yield from pair(replace(source, layout=layout), key)


def _read(source: Source) -> Iterator[str]:
    """The files under the root that the source's layout speaks of."""
    images = places(source, "images")
    for key in source.layout.keys() - {"list_entry", "stems", "number_offset"}:
        for pattern in {mask_wildcards(place, image) for place in places(source, key) for image in images}:
            for base in source.bases:
                folder = source.root / base / pattern
                inside = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
                yield from (path.relative_to(source.root).as_posix() for path in inside)
                yield from (match.path for match in find(source.root, base + pattern))


def test_the_tables_agree_with_the_recipes() -> None:
    assert {row[0].split("`")[1] for row in ROWS} <= set(SECTIONS)
    for row in ROWS:
        recipe = load_recipe(row[0].split("`")[1])
        labels, classes, images = row[1:4] if len(row) == 5 else ["mask", *row[1:3]]
        assert (labels, int(classes)) == (recipe.annotation_type, len(load_label_space(recipe)))
        assert recipe.role == ("train" if len(row) == 5 else "eval")
        assert f"(#{recipe.name})" in row[0]
        for number in re.findall(r"\d+", images):
            assert number in recipe.about, (recipe.name, number)
    for name in SECTIONS:
        assert f"(#{name})" in PAGE, f"nothing leads to the section on {name}"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        text = (DOCS / (file or "datasets.md")).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings]
