"""What a comparison is asked for, and what is wrong with that as far as it is known without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labelmerge.bank.store import read_index
from labelmerge.compare.variants import INPUTS, Variant, find_variants
from labelmerge.errors import ConfigError, LabelmergeError, UsageError
from labelmerge.model.checkpoint import find_checkpoint
from labelmerge.settings import parse_setting
from labelmerge.shardset.splits import find_splits
from labelmerge.train.config import TrainConfig, load_config
from labelmerge.urls import url_of


@dataclass(frozen=True)
class First:
    """A run that is trained before the variants, which begin with it or look at its features.

    Attributes:
        name: of its folder, in that of the comparison; not that of a variant.
        shards, settings: all of them; the rest is as for the variants.
        eval_shards: what it is measured on; (): it is not measured.
        inputs: of `INPUTS`, those that vary.
        called: what variants call it; runs that differ in what is swept have one name.
        serves: what is swept, as it is in the variants that it is for.
    """

    name: str
    shards: Sequence[Path]
    settings: Mapping[str, str]
    eval_shards: Sequence[Path] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    called: str = ""
    serves: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        out: gets a folder for each variant's run, and the report.
        vary: what differs, as ``KEY=VALUE`` (`find_variants`).
        shards, bank, preset, config, split, device: what all variants share, as `train` takes it.
        settings: those that all variants share; values are texts, as ``train --set KEY=VALUE`` takes them.
        eval_shards: what every variant is measured on.
        eval_options: keywords of `labelmerge.evaluate.evaluate.evaluate`: short_edge, scales, flip, window,
            window_stride, split, limit, task, mixed, depth_crop, depth_max; and only and leave_out, as `eval` takes
            them. Defaults are left out.
        first: the runs that are trained before the variants.
    """

    out: Path
    vary: Sequence[str]
    eval_shards: Sequence[Path]
    shards: Sequence[Path] = ()
    bank: Path | None = None
    preset: str | None = None
    config: Path | None = None
    split: str = "train"
    device: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    eval_options: Mapping[str, Any] = field(default_factory=dict)
    first: Sequence[First] = ()


class Faults:
    """What is wrong with which variants, in one message in the end. `out`: the comparison's folder."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._found: dict[str, list[str]] = {}  # message: the variants that it is about

    @contextmanager
    def of(self, variant: Variant) -> Iterator[None]:
        """Keep what is raised about a variant."""
        try:
            yield
        except LabelmergeError as error:
            where = None if error.where == self._out / variant.name else error.where
            said = str(LabelmergeError(error.what, where=where, fix=error.fix))
            self._found.setdefault(said, []).append(variant.name)

    def refuse(self) -> None:
        """Raise ConfigError if there was anything."""
        if self._found:
            said = [f"{', '.join(names)}: {what}" for what, names in self._found.items()]
            raise ConfigError("; ".join(text.rstrip(".") for text in said), where=self._out)


def asked_variants(asked: Comparison) -> list[Variant]:
    """The variants, their settings and inputs checked: that they are there and make sense, not what they hold.

    Raises:
        UsageError, ConfigError: the request makes no sense, or variants are wrong; one message names them all.
        ShardError, BankError: what all variants share is not there.
    """
    variants = find_variants(asked.vary)
    variants = [replace(each, own=with_firsts(each.own, each.own, asked.first, asked.out)) for each in variants]
    _refuse_both(asked, variants)
    if not asked.eval_shards:
        raise UsageError("nothing to measure on", fix="Give --eval-shards")
    _refuse_missing(asked.shards, asked.bank)
    _refuse_missing(asked.eval_shards, None)
    firsts = {str(asked.out / run.name) for run in asked.first}
    faults = Faults(asked.out)
    for variant in variants:
        with faults.of(variant):
            config, own = config_of(asked, variant.own), variant.own
            _refuse_missing(
                [Path(own["shards"])] if "shards" in own else [], Path(own["bank"]) if "bank" in own else None
            )
            if config.init and config.init not in firsts and url_of(Path(config.init)) is None:
                find_checkpoint(Path(config.init))
    faults.refuse()
    return variants


def with_firsts(
    texts: Mapping[str, str], swept: Mapping[str, str], firsts: Sequence[First], out: Path
) -> dict[str, str]:
    """Settings, with the runs in them that were trained first for these values of what is swept."""
    meant = {
        str(out / run.called): str(out / run.name)
        for run in firsts
        if any(served.items() <= swept.items() for served in run.serves)
    }
    return {key: ",".join(meant.get(part, part) for part in text.split(",")) for key, text in texts.items()}


def _refuse_missing(shards: Sequence[Path], bank: Path | None) -> None:
    if bank is not None and url_of(bank) is None:
        read_index(bank)
    find_splits([folder for folder in shards if url_of(folder) is None], unfinished=True)


def _refuse_both(asked: Comparison, variants: Sequence[Variant]) -> None:
    """Refuse what is both shared and varied, and inputs that a variant lacks. Raises UsageError."""
    common = {key for key in INPUTS if getattr(asked, key)} | asked.settings.keys()
    varied = {key for variant in variants for key in variant.own}
    if both := sorted(common & varied):
        raise UsageError(f"{both[0]} is varied, and also given for all variants", fix="Leave one of them out")
    for key in ("shards", "bank"):
        if key not in common and not all(key in variant.own for variant in variants):
            raise UsageError(f"no {key} to train with", fix=f"Give --{key}, or --vary {key}=PATH")


def config_of(asked: Comparison, own: Mapping[str, str]) -> TrainConfig:
    """A variant's settings. Raises ConfigError."""
    file = Path(own["config"]) if "config" in own else asked.config
    settings = {**asked.settings, **{key: value for key, value in own.items() if key not in INPUTS}}
    assignments = [f"{key}={text}" for key, text in settings.items()]
    return load_config(own.get("preset", asked.preset), file, dict(map(parse_setting, assignments)))
