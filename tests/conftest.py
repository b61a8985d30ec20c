"""What every test may use: the installed command, and the authentic samples where they are at hand."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

_SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples on every machine, so that what passes here passes there. Others: `--hypothesis-profile explore`.
settings.register_profile("explore")
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


@pytest.fixture
def run() -> Run:
    """Run the installed command: `run("ls", "--json")`."""
    entry, *_ = entry_points(group="console_scripts", name="labelmerge")  # others: of an environment below this one
    group = getattr(__import__(entry.module, fromlist=["cli"]), "cli")  # noqa: B009 (mypy cannot see inside)
    assert isinstance(group, click.Group)

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(group, [str(arg) for arg in args], prog_name="labelmerge")

    return invoke


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of small authentic samples of the real datasets, kept beside the checkout, not in it."""
    folder = _SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip("the authentic samples (../shared/fixtures) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def class_lists() -> Path:
    """The folder of official class lists, kept beside the checkout, not in it."""
    folder = _SHARED / "classes"
    if not folder.is_dir():
        pytest.skip("the official class lists (../shared/classes) are not beside this checkout")
    return folder
