"""What gets installed is what is in the folders, and nothing but `labelmerge` at the top of site-packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import files, version
from importlib.resources import files as resources
from pathlib import Path

import labelmerge

_ROOT = Path(__file__).resolve().parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_HOMES = {
    "labelmerge": "labelmerge",
    "cli": "labelmerge.cli",
    "label_descriptions": "labelmerge.label_descriptions",
    "shards": "labelmerge.shards",
}


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    found = {
        ".".join([package, *init.parent.relative_to(_ROOT / home).parts])
        for home, package in _HOMES.items()
        for init in (_ROOT / home).rglob("__init__.py")
    }
    assert set(_PROJECT["tool"]["setuptools"]["packages"]) == found


def test_every_data_file_is_covered_by_package_data() -> None:
    patterns = _PROJECT["tool"]["setuptools"]["package-data"]
    covered = set()
    for package, globs in patterns.items():
        folder = resources(package)
        assert isinstance(folder, Path)
        covered |= {path for glob in globs for path in folder.glob(glob)}
    on_disk = {
        path
        for home in _HOMES
        for path in (_ROOT / home).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert on_disk == covered


def test_only_labelmerge_stands_at_the_top_of_site_packages() -> None:
    tops = {path.parts[0] for path in files(_PROJECT["project"]["name"]) or []}
    tops = {top for top in tops if not top.startswith("__editable__") and not top.endswith(".dist-info")}
    assert tops - {"..", "__pycache__"} <= {"labelmerge"}


def test_versions_agree() -> None:
    assert version(_PROJECT["project"]["name"]) == labelmerge.__version__ == _PROJECT["project"]["version"]


def test_no_text_advises_to_install_another_projects_package() -> None:
    """On PyPI, `labelmerge` is somebody else's."""
    texts = [path for pattern in ("**/*.py", "**/*.md", "**/*.toml", "Makefile") for path in _ROOT.glob(pattern)]
    assert len(texts) > 100
    for path in texts:
        if ".venv" not in path.parts and path.resolve() != Path(__file__).resolve():
            found = re.findall(r"pip3? install [^`\n]*?\blabelmerge\b(?!-seg|/)", path.read_text(encoding="utf-8"))
            assert not found, path


def test_the_library_never_imports_the_command_line() -> None:
    for path in (_ROOT / "labelmerge").rglob("*.py"):
        text = path.read_text()
        if path.name == "__main__.py":  # which is the command line
            continue
        assert not re.search(r"labelmerge\.cli\b", text) and "import click" not in text, path
        assert not re.search(r"\bprint\(", text), path


def test_the_import_of_any_command_leaves_torch_alone() -> None:
    code = (
        "import sys, importlib\n"
        "from labelmerge.cli.main import COMMANDS\n"
        "for name in COMMANDS: importlib.import_module('labelmerge.cli.' + name)\n"
        "heavy = {'torch', 'open_clip', 'datasets', 'matplotlib', 'torchvision', 'sentence_transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
