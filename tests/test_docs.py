"""The pages in docs/: every command's options exist, and the pages on words, banks and merges run as they stand there.

Other pages have tests of their own: datasets.md, recipes.md, shards.md, merged.md; README.md.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGES = sorted(path.name for path in _DOCS.glob("*.md"))
_CLI: click.Group = importlib.import_module("labelmerge.cli.main").cli
_FEWER = {"embed all ": "embed cityscapes camvid ", "embed mseg7 ": "embed cityscapes camvid "}
_WEB = "--from wikipedia"


def _commands(page: str) -> list[str]:
    """The lines of a page's code blocks that call labelmerge, each whole and without its comment."""
    lines, language = [], None
    for line in (_DOCS / page).read_text("utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language in ("", "console", "bash", "sh"):
            lines.append(line)
    calls = (re.search(r"(?:^\$ (?:torchrun .*?)?|^)(labelmerge [a-z].*)", line) for line in lines)
    return [re.sub(r"\s+# .*$", "", call[1]) for call in calls if call]


def _shown(page: str) -> dict[str, str]:
    """What a page's console blocks show below a command, for those that show something."""
    text, shown = (_DOCS / page).read_text("utf-8"), {}
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if output.strip():
                shown[command] = output
    return shown


def _every() -> Iterator[tuple[str, str]]:
    for page in _PAGES:
        for command in _commands(page):
            yield page, command


@pytest.mark.parametrize("page", _PAGES)
def test_every_command_and_option_exists(page: str) -> None:
    for line in _commands(page):
        words = re.split(r"\s+[|>] ?", line)[0].split()[1:]
        context = click.Context(_CLI)
        command = _CLI.get_command(context, words[0])
        assert command is not None, line
        if isinstance(command, click.Group) and len(words) > 1:
            inner = command.get_command(context, words[1])
            assert inner is not None, line
            command = inner
        known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}
        flags = re.findall(r"(?<=\s)--[a-z][a-z-]*", re.sub(r'"[^"]*"', '""', " ".join(words)))
        assert set(flags) <= known, f"{page}: {line}\nno such option: {', '.join(set(flags) - known)}"


def test_commands_are_found() -> None:
    assert len(list(_every())) > 150
    assert "labelmerge bank list bank" in _commands("bank.md")


@pytest.fixture
def place(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `mine`, descriptions of one's own, and toy shards."""
    from labelmerge.demo.datasets import write_worlds

    roots = write_worlds(tmp_path / "data", 2, seed=0)
    monkeypatch.chdir(tmp_path)
    for dataset, split in (("cityscapes", "train"), ("camvid", "test")):
        assert not run("shard", dataset, "--root", roots[dataset], "--split", split, "--out", "shards-out").exit_code
    Path("mine").mkdir()
    Path("mine/cityscapes.csv").write_text("index,name,description\n13,car,A car is a vehicle with an engine.\n")
    return tmp_path


@pytest.mark.parametrize("page", ["bank.md", "merge.md", "descriptions.md"])
def test_the_page_runs(page: str, place: Path, run: Callable[..., Result]) -> None:
    done = 0
    shown = _shown(page)
    for command in _commands(page):
        expected = shown.get(command)
        for whole, fewer in _FEWER.items():
            command = command.replace(whole, fewer)
        if _WEB in command:
            continue
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += ["--steps", "1", "--batch-size", "2"]
        if page == "merge.md" and "neighbours" in words:  # of the fewer datasets' labels
            words[words.index("mouse")] = "car"
        result = run(*words)
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
        if expected is not None and page != "merge.md":  # whose example is the next test's
            assert result.output == expected, command
        done += 1
    assert done >= 2


def test_the_merge_of_three_datasets_is_as_the_page_says(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not run("embed", "cityscapes", "coco_panoptic", "camvid", "--encoder", "offline", "--out", "bank").exit_code
    merge = "labelmerge merge --bank bank --out merge"
    assert run(*merge.split()[1:]).output == _shown("merge.md")[merge]
    first, *_ = re.findall(r"```csv\n(.*?)```", (_DOCS / "merge.md").read_text("utf-8"), flags=re.DOTALL)
    assert set(first.splitlines()) <= set(Path("merge/taxonomy.csv").read_text("utf-8").splitlines())
