"""Numbers on the command line; and what was typed there, as opposed to labelmerge.toml, the environment, defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import click

from labelmerge.errors import UsageError


class WholeNumber(click.IntRange):
    """click's, in plainer words."""

    name = "whole number"


class Number(click.FloatRange):
    """click's, in plainer words, and without `nan`, which is within any bounds."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


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
