"""What every test may use: the installed command, and the authentic samples where they are at hand. What is slow."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

_SLOW = Path(__file__).parent / "slow.txt"
_SLOW_SECONDS = 1.0
_SHARED = Path(__file__).resolve().parents[2] / "shared"

# The same examples on every machine, so that what passes here passes there. Others: `--hypothesis-profile explore`.
settings.register_profile("explore")
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--measure-slow",
        action="store_true",
        help=f"rewrite {_SLOW.name}: tests that took over {_SLOW_SECONDS:g} s, and those listed that were not run",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--measure-slow") and not hasattr(config, "workerinput"):  # the workers' reports come here too
        config.pluginmanager.register(_Stopwatch())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in slow.txt: measured, in one place, so that no test is called slow by guess or by habit."""
    slow = set(_SLOW.read_text().split())
    for item in items:
        if _function(item.nodeid) in slow:
            item.add_marker("slow")


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


class _Stopwatch:
    """Adds up the seconds of each test with its fixtures; of one with parameters, those of its slowest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        run = {_function(nodeid) for nodeid in self.seconds}
        slow = {_function(nodeid) for nodeid, seconds in self.seconds.items() if seconds > _SLOW_SECONDS}
        kept = set(_SLOW.read_text().split()) - run
        _SLOW.write_text("".join(f"{name}\n" for name in sorted(slow | kept)))


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


@pytest.fixture
def run() -> Run:
    """Run the command: `run("ls", "--json")`."""
    group = importlib.import_module("labelmerge.cli.main").cli  # where mypy cannot see
    assert isinstance(group, click.Group)

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(group, [str(arg) for arg in args], prog_name="labelmerge")

    return invoke


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: what is this small takes longer to share among threads than to work through."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
