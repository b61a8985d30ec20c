"""The command line as a whole: help, unknown names, one-line errors."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

# By name: type checkers see `cli/` where it lies in the checkout, not where it installs.
COMMANDS: dict[str, str] = importlib.import_module("labelmerge.cli.main").COMMANDS
SpreadCommand: type[click.Command] = importlib.import_module("labelmerge.cli.options").SpreadCommand

Run = Callable[..., Result]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage: labelmerge" in result.output
    assert "Example" in result.output


def test_help_lists_the_commands_in_the_order_of_the_pipeline(run: Run) -> None:
    output = run("--help").output.split("Commands:")[1]
    places = [output.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("shards")
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_an_unknown_dataset_gets_the_near_names_and_no_traceback(run: Run, tmp_path: object) -> None:
    result = run("embed", "citiscapes", "--out", tmp_path)
    assert result.exit_code == 2
    assert "cityscapes" in result.stderr
    assert "Traceback" not in result.output + result.stderr


def test_a_repeatable_option_takes_every_value_up_to_the_next_option() -> None:
    @click.command(cls=SpreadCommand)
    @click.option("--shards", multiple=True)
    @click.option("--bank")
    def command(shards: tuple[str, ...], bank: str) -> None:
        click.echo(f"{shards} {bank}")

    assert CliRunner().invoke(command, ["--shards", "a", "b", "--bank", "c"]).output == "('a', 'b') c\n"
    assert CliRunner().invoke(command, ["--shards", "a", "--bank", "c", "--shards=b"]).output == "('a', 'b') c\n"
    assert CliRunner().invoke(command, ["--shards", "a", "--bank", "c", "d"]).exit_code == 2


def test_what_the_operating_system_refuses_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    result = run("ls", "closed/my_streets.toml")
    assert result.exit_code == 1
    assert result.stderr == "Error: closed/my_streets.toml: Permission denied\n"
