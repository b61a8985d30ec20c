"""Measure a checkpoint on shards: every set by its own labels, whatever it was trained on. docs/evaluation.md."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge import __version__
from labelmerge.catalog import SPLITS
from labelmerge.embed.bank import Bank
from labelmerge.errors import BankError, OutputError, SampleError, ShardError, UsageError
from labelmerge.evaluate.inference import LabelVectors, segment
from labelmerge.evaluate.metrics import Confusion, Metrics, confusion_matrix, harmonic_mean
from labelmerge.evaluate.views import Views
from labelmerge.files import output_faults, write_bytes, write_json
from labelmerge.loading.stream import ShardSet, find_splits
from labelmerge.model.checkpoint import Checkpoint, load_checkpoint
from labelmerge.model.device import choose_device
from labelmerge.progress import Track, no_track

FORMAT = "labelmerge-results/1"
_PREFERENCE = ("val", "test", "train")
assert set(_PREFERENCE) == set(SPLITS)
_MAX_REASONS = 100  # skipped samples that are listed in the results; all are counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetResult:
    """What was measured on one split of one dataset.

    Attributes:
        data: the shards.
        texts: what each class's vector was made from, in the order of the label space.
        predicted_as: position of the class that is predicted for each class (`LabelVectors.predicted_as`).
        images: how many images were measured.
        skipped: key and reason of the samples that could not be read.
        confusion: int64 ``[K, K]``, row = truth, column = prediction, in the order of the label space.
        metrics: what it says.
    """

    data: ShardSet
    texts: Sequence[str]
    predicted_as: Sequence[int]
    images: int
    skipped: Sequence[tuple[str, str]]
    confusion: Confusion
    metrics: Metrics

    @property
    def name(self) -> str:
        """``<dataset>-<split>``."""
        return f"{self.data.dataset}-{self.data.split}"

    def to_json(self) -> dict[str, Any]:
        """One entry of ``sets`` in results.json."""
        space, metrics = self.data.space, self.metrics
        classes = []
        for k, (name, index) in enumerate(zip(space.names, space.indices, strict=True)):
            row: dict[str, Any] = {
                "name": name,
                "index": index,
                "iou": _number(metrics.iou[k]),
                "accuracy": _number(metrics.accuracy[k]),
                "truth_pixels": int(metrics.truth_pixels[k]),
                "predicted_pixels": int(metrics.predicted_pixels[k]),
                "text": self.texts[k],
            }
            meant = self.predicted_as[k]
            if meant != k:
                row["predicted_as"] = space.indices[meant] if meant >= 0 else None
            classes.append(row)
        return {
            "dataset": self.data.dataset,
            "split": self.data.split,
            "images": self.images,
            "skipped": len(self.skipped),
            "skipped_samples": [{"key": key, "reason": reason} for key, reason in self.skipped[:_MAX_REASONS]],
            "miou": _number(metrics.miou),
            "mean_accuracy": _number(metrics.mean_accuracy),
            "pixel_accuracy": _number(metrics.pixel_accuracy),
            "classes": classes,
            "label_space": space.hash,
            "manifest_sha256": self.data.manifest_sha256,
            "annotation_type": self.data.annotation_type,
        }


@dataclass(frozen=True)
class Results:
    """What `evaluate` found.

    Attributes:
        sets: one result for each split, in order of dataset and split.
        harmonic_mean: of the sets' mIoU (0..1).
        protocol: everything that the numbers depend on, as in results.json.
        path: results.json.
        confusion_path: the confusion matrices: an npz with one int64 ``[K, K]`` array for each set, by its name.
    """

    sets: tuple[SetResult, ...]
    harmonic_mean: float
    protocol: dict[str, Any]
    path: Path
    confusion_path: Path

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "format": FORMAT,
            "labelmerge": __version__,
            "harmonic_mean": self.harmonic_mean,
            "sets": [result.to_json() for result in self.sets],
            "confusion": self.confusion_path.name,
            "protocol": self.protocol,
        }

    def table(self, *, per_class: bool = False) -> str:
        """The results as plain text, in percent; with the IoU of every class if asked for."""
        rows: list[tuple[str, ...]] = [("set", "images", "mIoU %", "mean acc %", "pixel acc %")]
        for result in self.sets:
            metrics = result.metrics
            figures = (metrics.miou, metrics.mean_accuracy, metrics.pixel_accuracy)
            rows.append((result.name, str(result.images), *map(_percent, figures)))
        rows.append(("harmonic mean", "", _percent(self.harmonic_mean), "", ""))
        parts = [_columns(rows)]
        for result in self.sets if per_class else ():
            lines: list[tuple[str, ...]] = [(result.name, "IoU %", "truth pixels", "predicted")]
            measured = zip(
                result.data.space.names,
                result.metrics.iou,
                result.metrics.truth_pixels,
                result.metrics.predicted_pixels,
                strict=True,
            )
            lines += [(name, _percent(iou), f"{truth:,}", f"{found:,}") for name, iou, truth, found in measured]
            parts.append(_columns(lines))
        return "\n\n".join(parts)


def evaluate(
    checkpoint: Path,
    shards: Sequence[Path],
    bank: Path,
    out: Path,
    *,
    short_edge: int | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    split: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    track: Track = no_track,
) -> Results:
    """Segment every image of `shards` with its own dataset's labels, and compare with the masks.

    Nothing needs to have been trained on these labels: a class is predicted where the cosine between the pixel's
    embedding and the class's own row of the bank is the largest of its label space.

    Args:
        checkpoint: a run, or one checkpoint folder.
        shards: split folders, dataset folders, or folders of datasets. Sets without labelled masks are left out.
        bank: holds the labels of these datasets; made by the encoder that the checkpoint was trained with.
        out: results.json; the confusion matrices go beside it, as ``<stem>.confusion.npz``.
        short_edge: pixels of an image's short edge at scale 1; 0: its own size; None: what the run was trained at.
        scales, flip: views whose probabilities are averaged (`labelmerge.evaluate.inference.Views`).
        split: which split of a dataset to take; by default `val`, where there is none `test`, then `train`. A split
            folder that is given itself is always taken.
        device: where the model lives; by default a GPU if there is one.
        limit: at most this many images of each set, spread evenly over it.

    Returns:
        The results, which then are in `out` too.

    Raises:
        CheckpointError, ShardError, BankError, UsageError: what was given can't be used or doesn't fit together.
        OutputError: `out` can't be written.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images leaves nothing to measure")
    _check_out(out)
    sets = _measurable([ShardSet.open(folder) for folder in choose_splits(shards, split)])
    names: dict[tuple[str, str], Path] = {}
    for data in sets:
        first = names.setdefault((data.dataset, data.split), data.folder)
        if first != data.folder:
            raise ShardError(
                f"{data.dataset} {data.split} again, which is in {first} too",
                where=data.folder,
                fix="Evaluate them one after the other",
            )
    here = choose_device(device)
    trained = load_checkpoint(checkpoint, here)
    vectors = load_bank(bank, trained)
    labels = [LabelVectors(vectors.rows(data.space.keys)) for data in sets]
    if short_edge is None:
        short_edge = trained.short_edge
    views = Views(short_edge=short_edge, scales=tuple(scales), flip=flip)
    measured = tuple(
        _measure(trained, data, label_vectors, vectors, views, limit, track)
        for data, label_vectors in zip(sets, labels, strict=True)
    )
    results = Results(
        sets=measured,
        harmonic_mean=harmonic_mean(result.metrics.miou for result in measured),
        protocol=_protocol(trained, vectors, views, split, limit, str(here)),
        path=out,
        confusion_path=out.with_name(f"{out.stem}.confusion.npz"),
    )
    matrices = io.BytesIO()
    np.savez_compressed(matrices, allow_pickle=False, **{result.name: result.confusion for result in measured})
    write_bytes(results.confusion_path, matrices.getvalue())
    write_json(out, results.to_json())
    return results


def choose_splits(folders: Sequence[Path], split: str | None) -> list[Path]:
    """The split folders to measure: of each dataset one, as `evaluate` says.

    Raises:
        ShardError: as `labelmerge.loading.stream.find_splits`.
    """
    found = find_splits(folders, split)
    if split is None:
        named = {folder.resolve() for folder in folders}
        taken = [folder for folder in found if folder in named]
        by_dataset: dict[Path, list[Path]] = {}
        for folder in found:
            if folder not in named:
                by_dataset.setdefault(folder.parent, []).append(folder)
        taken += [min(splits, key=_preference) for splits in by_dataset.values()]
        found = sorted(taken)
    return found


def _preference(folder: Path) -> tuple[int, str]:
    known = folder.name in _PREFERENCE
    return (_PREFERENCE.index(folder.name) if known else len(_PREFERENCE), folder.name)


def load_bank(folder: Path, checkpoint: Checkpoint) -> Bank:
    """The newest version of a bank, made sure to be in the space that the checkpoint was trained in.

    Raises:
        BankError: there is none, or it is of another encoder; the message names both.
    """
    bank = Bank.load(folder)
    fix = "Use a bank of the encoder that the checkpoint was trained with"
    if checkpoint.bank_folder is not None:
        fix += f", such as the checkpoint's own, --bank {checkpoint.bank_folder}"
        own = Bank.load(checkpoint.bank_folder)
        if not own.same_encoder(bank):
            raise BankError(
                f"this bank was made by {_identity(bank)}, the checkpoint was trained with {_identity(own)}",
                where=folder,
                fix=fix,
            )
        if own.prompt != bank.prompt:
            _log.warning(
                "the bank's texts are made as %r, those that the checkpoint was trained with as %r",
                bank.prompt,
                own.prompt,
            )
    if bank.dim != checkpoint.model.embedding_dim:
        raise BankError(
            f"its vectors ({_identity(bank)}) have {bank.dim} dimensions, the checkpoint's pixel embeddings "
            f"{checkpoint.model.embedding_dim}",
            where=folder,
            fix=fix,
        )
    return bank


def _identity(bank: Bank) -> str:
    return f"{bank.encoder} (weights {str(bank.identity.get('weights_sha256'))[:12]}, {bank.dim} dimensions)"


def _check_out(out: Path) -> None:
    """Say before the work, not after it, that its result has no place."""
    with output_faults(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        raise OutputError("a folder is where a file must go", where=out, fix="Choose another --out")
    if not os.access(out.parent, os.W_OK):
        raise OutputError("no permission to write here", where=out, fix="Choose another --out")


def _measurable(sets: Sequence[ShardSet]) -> list[ShardSet]:
    """Those that have labelled masks; what is left out is logged. Raises ShardError where none is left."""
    kept, reasons = [], []
    for data in sets:
        if data.annotation_type == "box":
            reasons.append(f"{data.dataset} {data.split} has boxes but no masks, so there is no IoU to measure")
        elif not any(data.class_pixels.values()):
            reasons.append(f"no pixel of {data.dataset} {data.split} is labelled (are its masks held back?)")
        else:
            kept.append(data)
    if not kept:
        raise ShardError("; ".join(reasons), where=sets[0].folder, fix="Evaluate on a dataset or split with masks")
    for reason in reasons:
        _log.info("left out: %s", reason)
    return kept


def _measure(
    checkpoint: Checkpoint,
    data: ShardSet,
    labels: LabelVectors,
    bank: Bank,
    views: Views,
    limit: int | None,
    track: Track,
) -> SetResult:
    space = data.space
    texts = [bank.texts[row] for row in bank.positions(space.keys)]
    for k, meant in enumerate(labels.predicted_as):
        if 0 <= meant != k:
            _log.warning(
                "%s: %r and %r have the same vector and can't be told apart: both are predicted as %r",
                data.dataset, space.names[meant], space.names[k], space.names[meant],
            )  # fmt: skip
    unlabelled, unknown = -1, -2
    position_of = space.lookup({index: k for k, index in enumerate(space.indices)}, unknown)
    position_of[space.ignore_index] = unlabelled
    confusion = np.zeros((len(space), len(space)), dtype=np.int64)
    skipped: list[tuple[str, str]] = []
    count = min(len(data), limit or len(data))
    numbers = [place * len(data) // count for place in range(count)]
    device = next(checkpoint.model.parameters()).device
    tau = checkpoint.temperature().item()
    for number in track(numbers, f"evaluating {data.dataset} {data.split}", count):
        try:
            sample = data.read(number)
            assert sample.mask is not None  # `_measurable`
            truth = position_of[sample.mask]
            if (truth == unknown).any():
                wrong = sorted({int(value) for value in np.unique(sample.mask[truth == unknown])})
                raise SampleError(f"mask values {wrong} are no classes of {data.dataset}", where=sample.key)
        except SampleError as error:
            _log.warning("skipped %s", error)
            skipped.append((str(error.where), error.what))
            continue
        prediction = segment(checkpoint.model, sample.image, labels, tau=tau, views=views, device=device)
        confusion += confusion_matrix(truth, prediction, len(space))
    if not confusion.any():
        raise ShardError(
            f"none of {count} images has a labelled pixel that could be measured ({len(skipped)} are corrupt)",
            where=data.folder,
            fix="`labelmerge verify` says more",
        )
    predicted_as = [int(k) for k in labels.predicted_as]
    return SetResult(data, texts, predicted_as, count - len(skipped), skipped, confusion, Metrics.of(confusion))


def _protocol(
    checkpoint: Checkpoint, bank: Bank, views: Views, split: str | None, limit: int | None, device: str
) -> dict[str, Any]:
    several = len(views.scales) > 1 or views.flip
    return {
        "crop": "whole image",
        "short_edge": views.short_edge,
        "scales": list(views.scales),
        "flip": views.flip,
        "resize": "bilinear, antialiased; short_edge 0 is the image's own size",
        "decision": "largest mean of softmax(cosine / temperature) over the views" if several else "largest cosine",
        "resolution": "measured at the size of the mask",
        "temperature": checkpoint.temperature().item(),
        "labels": "all classes of the set's own label space, each by its own row of the bank",
        "ignored": "pixels without a label in the mask, whatever is predicted there",
        "miou": "mean over the classes with a labelled or a predicted pixel; predicted but never labelled counts as 0",
        "split": split,
        "limit": limit,
        "checkpoint": {"hash": checkpoint.hash, "step": checkpoint.step, "model": checkpoint.model.name},
        "bank": {
            "version": bank.version,
            "content_sha256": bank.content_hash,
            "encoder": bank.encoder,
            "identity": dict(bank.identity),
            "prompt": bank.prompt,
        },
        "device": device,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
