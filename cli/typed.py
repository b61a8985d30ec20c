"""What a user typed, as opposed to what labelmerge.toml, the environment or a default says."""

from __future__ import annotations

from collections.abc import Iterable

import click

from labelmerge.errors import UsageError


def was_typed(context: click.Context, name: str) -> bool:
    """Whether the command line has this option, and not labelmerge.toml or the environment alone."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def refuse_idle(names: Iterable[str], why: str, fix: str) -> None:
    """Raise a UsageError where one of these options of the current command was typed, which here has no effect.

    Args:
        why: ends the sentence "--option …".
        fix: what to do instead.
    """
    context = click.get_current_context()
    for name in names:
        if was_typed(context, name):
            raise UsageError(f"--{name.replace('_', '-')} {why}", fix=fix)
