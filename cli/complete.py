"""What a shell offers for the values of arguments and options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from labelmerge.settings import Setting

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]

_VALUE = re.compile(r"`([a-z][a-z0-9-]*)`")
"""A word that a setting's help sets apart: one of the values that it may have."""


def _beginning(words: Iterable[str], incomplete: str, files: bool = False) -> list[CompletionItem]:
    """Those of some words that begin so; where none does, files."""
    from click.shell_completion import CompletionItem

    found = [CompletionItem(word) for word in words if word.startswith(incomplete)]
    return found or ([CompletionItem(incomplete, type="file")] if files else [])


def dataset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of datasets, and files: recipes and class lists."""
    from labelmerge.catalog import dataset_names

    return _beginning(dataset_names(), incomplete, files=True)


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The same, and names of several at once: mixtures, `all`."""
    from labelmerge.catalog import dataset_names, mixture_names

    return _beginning([*dataset_names(), *mixture_names(), "all"], incomplete, files=True)


def preset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of presets."""
    from labelmerge.train.config import preset_names

    return _beginning(preset_names(), incomplete)


def encoder(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The beginnings of encoder specs."""
    return _beginning(("offline", "open_clip:ViT-B-32/laion2b_s34b_b79k", "sentence-transformers:"), incomplete)


def device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Where tensors can live."""
    return _beginning(("cpu", "cuda", "mps"), incomplete)


def split(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What splits are called."""
    from labelmerge.catalog import SPLITS, UNLABELED

    return _beginning((*SPLITS, UNLABELED), incomplete)


def setting(declared: Setting) -> Complete | None:
    """The values that a text setting's help names, and files where it is a path; None: click's own answer."""
    if declared.kind is not str or declared.choices:
        return None
    words = dict.fromkeys(_VALUE.findall(declared.help))
    return lambda ctx, param, incomplete: _beginning(words, incomplete, files=declared.path)
