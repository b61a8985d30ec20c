"""The steps of the command line as functions that take paths as texts and settings as words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labelmerge.bank.bank import Bank
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.progress import Track, no_track
from labelmerge.shardset.shardset import ShardSet

if TYPE_CHECKING:
    from labelmerge.evaluate.record import Results
    from labelmerge.predict.segmenter import Segmenter
    from labelmerge.train.finished import RunResult

T = TypeVar("T")
Paths = str | Path | Sequence[str | Path]


def embed_labels(
    datasets: str | Sequence[str],
    out: str | Path,
    *,
    encoder: str | None = None,
    progress: bool = False,
    **options: Any,
) -> Bank:
    """Turn labels and what they mean into vectors: a new version of the bank in `out`, or the one that is there.

    Args:
        datasets: known ones (``cityscapes``), paths of recipes (``.toml``) or of lists of class names (``.csv``,
            ``.txt``).
        out: the bank's folder. What it already holds stays.
        encoder: ``offline``, ``open_clip:MODEL/TAG`` …; None: the bank's own, or CLIP ViT-B/32 for a new one.
        progress: show a bar.
        options: of `labelmerge.embed.embed.embed_labels`, such as ``words=True`` and ``device``.

    Returns:
        The bank: `keys`, `names`, `texts` and `vectors`, float32 ``[labels, D]`` of unit length.

    Raises:
        UsageError, RecipeError, DescriptionsError, EncoderError, BankError, OutputError: as `labelmerge embed` says.
    """
    from labelmerge.embed.datasets import find_datasets
    from labelmerge.embed.embed import embed_labels as embed

    names = [datasets] if isinstance(datasets, str) else list(datasets)
    embed(find_datasets([str(name) for name in names]), Path(out), encoder=encoder, track=_track(progress), **options)
    return Bank.load(Path(out))


def open_bank(folder: str | Path, version: str | None = None) -> Bank:
    """A bank that `labelmerge embed` wrote: `keys`, `names`, `texts`, `vectors`; `rows(keys)` for some of them.

    Args:
        folder: or its URL.
        version: ``v0001`` or its whole name; None: the newest.

    Raises:
        BankError: it can't be read, or there is no such version.
    """
    return Bank.load(Path(folder), version)


def merge_labels(*datasets: str, bank: Bank | str | Path | None = None, encoder: str = "offline") -> Taxonomy:
    """Find the concepts that labels stand for: those of equal sets mean the same.

    Args:
        datasets: what `embed_labels` takes. With `bank`, which of its datasets; none: all.
        bank: that of these labels; None: one is made for the moment.
        encoder: of that bank.

    Returns:
        A taxonomy. ``taxonomy["cityscapes", 11].concepts`` are a label's, `labelmerge.relations` the related pairs, and
        ``taxonomy.table()`` is the CSV that `labelmerge train --taxonomy` takes.

    Raises:
        UsageError, RecipeError, DescriptionsError, EncoderError, BankError: as `labelmerge merge` says.
    """
    from labelmerge.bank.concepts import concept_encoder
    from labelmerge.errors import UsageError
    from labelmerge.merge.merges import by_concepts

    if bank is None:
        if not datasets:
            raise UsageError("nothing to merge", fix="Name datasets or lists of class names, or give a bank")
        with tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch:
            made = embed_labels(datasets, Path(scratch) / "bank", encoder=encoder)
            return by_concepts(made, concept_encoder(made))
    opened = bank if isinstance(bank, Bank) else Bank.load(Path(bank))
    labels = opened.for_datasets(datasets) if datasets else opened
    return by_concepts(labels, concept_encoder(labels))


def open_shards(folder: str | Path) -> ShardSet:
    """One split in shards: ``len(shards)``, ``shards.read(0).image`` and ``.mask``, ``shards.space.names``.

    Args:
        folder: the split's, such as ``shards-out/cityscapes/train``, or its URL.

    Raises:
        ShardError: they can't be read.
    """
    return ShardSet.open(Path(folder))


def train_run(
    shards: Paths,
    bank: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    device: str | None = None,
    progress: bool = False,
    **settings: Any,
) -> RunResult:
    """Train one model on all the shards, or go on with a run that was interrupted.

    Args:
        shards: one folder or several: splits, datasets, or folders of datasets.
        bank: the bank's folder.
        out: the run's.
        preset: ``tiny`` (default), ``lite``, ``segformer-b5`` or ``hrnet-w48``.
        config: a TOML file of settings.
        device: ``cpu``, ``cuda`` …; None: a GPU if there is one.
        progress: show a bar, with the loss.
        settings: those of docs/training.md, such as ``steps=300, batch_size=8``.

    Returns:
        The run's folder, newest checkpoint, steps and loss.

    Raises:
        LabelmergeError: as `labelmerge.train.loop.train`.
    """
    from labelmerge.train.config import load_config
    from labelmerge.train.loop import train

    chosen = load_config(preset, None if config is None else Path(config), settings)
    return train(_paths(shards), Path(bank), Path(out), config=chosen, device=device, track=_track(progress))


def evaluate_run(
    run: str | Path,
    shards: Paths,
    out: str | Path,
    *,
    bank: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> Results:
    """Measure a run on sets in shards, each by its own labels.

    Args:
        run: or one checkpoint of it, or a URL.
        shards: one folder or several: splits, datasets, or folders of datasets.
        out: results.json; confusion matrices, a table of all images and pictures go beside it.
        bank: with these sets' labels; None: the one that the checkpoint carries.
        progress: show a bar.
        options: of `labelmerge.evaluate.evaluate.evaluate`, such as ``split``, ``limit``, ``mixed`` and ``views``.

    Returns:
        ``results.sets[0].metrics.miou``, ``results.table(per_class=True)``, ``results.to_json()``.

    Raises:
        LabelmergeError: as `labelmerge.evaluate.evaluate.evaluate`.
    """
    from labelmerge.evaluate.evaluate import evaluate

    own = None if bank is None else Path(bank)
    return evaluate(Path(run), _paths(shards), own, Path(out), track=_track(progress), **options)


def open_run(run: str | Path, *, device: str | None = None) -> Segmenter:
    """A trained run that segments images by any words: ``open_run("run").segment("photo.jpg", "road; car; sky")``.

    Args:
        run: or one checkpoint of it, or a URL.
        device: ``cpu``, ``cuda`` …; None: a GPU if there is one.

    Raises:
        CheckpointError: no checkpoint is there, or it can't be used.
    """
    from labelmerge.predict.segmenter import Segmenter

    return Segmenter(run, device=device)


def _track(progress: bool) -> Track:
    """Bars that notebooks and terminals show, or none."""
    if not progress:
        return no_track
    from tqdm.auto import tqdm

    def track(things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
        bar: Iterable[T] = tqdm(things, desc=what, total=total)
        return bar

    return track


def _paths(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
