"""Which package may import which, no circles, no long files. docs/architecture.md shows the same table."""

from __future__ import annotations

import ast
import shutil
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "labelmerge"
LONGEST = 400
TOP = {
    *(".ci", ".gitignore", ".oxlintrc.json", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("cli", "docs", "label_descriptions", "labelmerge", "pyproject.toml", "shards", "tests"),
}

# package: what it may import besides itself and the ground floor (the single files of the library)
ARROWS: dict[str, tuple[str, ...]] = {
    "shardset": (),
    "encoders": (),
    "bank": ("encoders",),
    "describe": (),
    "embed": ("bank", "encoders"),
    "merge": ("bank", "shardset"),
    "sharding": ("shardset", "encoders", "merge"),
    "recipe": ("sharding",),
    "push": ("shardset", "bank", "model"),
    "inspect": ("shardset", "merge", "push"),
    "loading": ("shardset",),
    "losses": (),
    "tasks": (),
    "model": (),
    "methods": ("shardset", "bank", "encoders", "merge", "loading", "losses", "model"),
    "train": ("shardset", "bank", "merge", "loading", "model", "methods"),
    "evaluate": ("shardset", "bank", "merge", "model", "methods", "tasks"),
    "predict": ("shardset", "bank", "encoders", "embed", "merge", "model", "methods", "tasks"),
    "compare": ("shardset", "bank", "merge", "model", "methods", "train", "evaluate"),
    "plot": ("bank", "merge", "shardset"),
    "api": ("bank", "embed", "merge", "shardset", "train", "evaluate", "predict"),
    "demo": (
        *("bank", "embed", "merge", "sharding", "shardset", "model", "methods", "train", "evaluate", "predict"),
        *("plot", "compare"),
    ),
}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(LIBRARY.rglob("*.py"))
    }


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the library that a file imports, wherever in it; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return found & known.keys() - {"labelmerge"}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (LIBRARY / parts[-1]).is_dir() else "the ground floor"


def test_rooms_import_only_what_they_may() -> None:
    known = modules()
    wrong = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in sorted(imports(path, known))
        if room_of(other) not in (room_of(module), "the ground floor", *ARROWS.get(room_of(module), ()))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    known = modules()
    files = {module: imports(path, known) - {module} for module, path in known.items()}
    list(TopologicalSorter(files).static_order())  # raises CycleError
    list(TopologicalSorter(ARROWS).static_order())


def test_no_file_is_long() -> None:
    suffixes = {".py", ".js", ".css", ".j2", ".html"}
    paths = [path for folder in ("labelmerge", "cli", "tests") for path in (ROOT / folder).rglob("*")]
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in paths if path.suffix in suffixes}
    long = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST]
    assert not long, "\n".join(long)


def test_nothing_strays_into_the_repository() -> None:
    if not ((ROOT / ".git").exists() and shutil.which("git")):
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {path.split("/")[0] for path in listed.split("\0") if path} == TOP


def test_the_page_shows_the_same_table() -> None:
    rows = [
        line.split("|")[1:3] for line in (ROOT / "docs/architecture.md").read_text("utf-8").splitlines() if "|" in line
    ]
    shown = {
        package.strip(" `"): arrows.replace("`", "").split()
        for package, arrows in rows
        if package.strip(" `") in ARROWS
    }
    assert {package: sorted(" ".join(arrows).replace(",", " ").split()) for package, arrows in shown.items()} == {
        package: sorted(arrows or ("–",)) for package, arrows in ARROWS.items()
    }
