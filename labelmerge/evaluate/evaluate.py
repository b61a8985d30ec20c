"""Measure a checkpoint: every set by its own labels, whatever it was trained on. docs/evaluation.md."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from labelmerge.device import choose_device
from labelmerge.errors import OutputError, ShardError, UsageError
from labelmerge.evaluate.classes import Classes, names_in_words
from labelmerge.evaluate.counting import count_set
from labelmerge.evaluate.depths import DepthLimits, ask_depths, measure_depth, refuse_other_tasks
from labelmerge.evaluate.examples import EXAMPLES
from labelmerge.evaluate.protocol import command, protocol
from labelmerge.evaluate.questions import Question, ask
from labelmerge.evaluate.record import FORMAT, Results, SetResult
from labelmerge.evaluate.sets import EvalSet, measurable, open_splits
from labelmerge.files import output_faults
from labelmerge.methods.meaning import By
from labelmerge.methods.predictor import Predictor
from labelmerge.methods.restore import load_bank, load_trained
from labelmerge.model.views import Views
from labelmerge.processes import Ranks, own_device, processes
from labelmerge.progress import Track, no_track
from labelmerge.shardset.samples import Samples, all_are_things
from labelmerge.tasks.ambiguity import Mixed
from labelmerge.tasks.instances import InstanceTask
from labelmerge.tasks.panoptic import Panoptic
from labelmerge.tasks.semantic import Metrics, Semantic, SemanticCounts, harmonic_mean
from labelmerge.tasks.task import Task

Measure = Literal["semantic", "panoptic", "instances", "depth"]
"""What can be measured."""

_AS_TRAINED = Views()
_HEAD = 1000  # bytes of a results.json in which its format is named

_log = logging.getLogger(__name__)


def evaluate(
    checkpoint: Path,
    shards: Sequence[Path],
    bank: Path | None,
    out: Path,
    *,
    datasets: Sequence[Samples] = (),
    views: Views = _AS_TRAINED,
    split: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    by: By | None = None,
    mixed: bool = False,
    taxonomy: Path | None = None,
    only: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    tasks: Collection[Measure] = (),
    examples: int = EXAMPLES,
    worst: int = 0,
    depth_crop: str | None = None,
    depth_max: float | None = None,
    segment_score: float | None = None,
    track: Track = no_track,
) -> Results:
    """Segment every image with its own dataset's labels, and compare with the masks.

    Where the method compares pixels with label vectors, nothing needs to have been trained on these labels: each is
    asked for by its own row of the bank. A run whose columns are concepts is asked by the columns that a label
    stands for (`labelmerge.methods.meaning`).

    Several processes that `torchrun` has started share the images; the results are those of one, which the first
    writes and all return.

    Args:
        checkpoint: a run, or one checkpoint folder.
        shards: split folders, dataset folders, or folders of datasets. Sets without labelled masks are left out.
        bank: holds the labels of these datasets; made by the encoder that the checkpoint was trained with. None: the
            one that the checkpoint carries.
        out: results.json; beside it go the confusion matrices, as ``<stem>.confusion.npz`` and one picture each, how
            well each image was segmented, as ``<stem>.images.csv``, and the examples, into ``<stem>.examples/``.
        datasets: other splits, already open: `labelmerge.sharding.raw.open_raw` opens a dataset as it was unpacked.
        views: how images are shown to the model; a short edge of None is that which each dataset was trained at.
        split: which split of a dataset to take; by default `val`, where there is none `test`, then `train`. A split
            folder that is given itself is always taken.
        device: where the model lives; by default a GPU if there is one.
        limit: at most this many images of each set, spread evenly over it.
        by: what labels are asked for by: ``concepts``, the run's columns, or their own ``text``; by default concepts
            where the run has them.
        mixed: also segment every set with one list of all sets' labels.
        taxonomy: what the sets' labels mean, for the figures that know relations; by default as
            `labelmerge.merge.merges.by_concepts` has it.
        only: the names of the classes that are measured, ``DATASET:NAME`` for one dataset's; pixels of others don't
            count, and nothing is taken for them. None: all.
        leave_out: the same, of the classes that are not measured.
        examples: of how many images of each set pictures are kept (`labelmerge.evaluate.examples.chosen`).
        worst: of how many of the worst images of each set pictures are kept, too.
        tasks: what to measure; ``semantic`` always is, and ``panoptic`` and ``instances`` on sets that have segments.
            Of a run that gives depths it is ``depth``, and nothing else.
        depth_crop: of depths, the part of the image that counts (`labelmerge.tasks.depth.CROPS`).
        depth_max: of depths, the cap in metres.
        segment_score: for ``panoptic``, how probable a segment's label has to be; by default as in training.

    Raises:
        CheckpointError, ShardError, LayoutError, RecipeError, BankError, TaxonomyError, UsageError: what was given
            can't be used or doesn't fit together.
        OutputError: `out` can't be written.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} images leaves nothing to measure")
    _check_out(out)
    here = choose_device(own_device(device))
    splits = open_splits(shards, datasets, split)
    trained = load_trained(checkpoint, here)
    if segment_score is not None:
        trained.learner.set_segment_score(segment_score)
        if "panoptic" not in tasks:
            raise UsageError("--segment-score is for --task panoptic", fix="Give that, too, or leave it out")
    deep = trained.learner.answers == "depth"
    limits = DepthLimits(depth_crop, depth_max)
    refuse_other_tasks(trained, tasks, mixed, limits)
    classes = Classes(tuple(only), tuple(leave_out))
    if classes and (deep or {"panoptic", "instances"} & set(tasks)):
        raise UsageError("some classes alone are measured by pixels", fix="Leave out --only and --leave-out, or --task")
    sets = classes.of(measurable(splits, datasets, depth=deep))
    vectors = load_bank(bank, trained)
    shown, own_edges = views, dict[str, int]()
    if views.short_edge is None:
        edges = {data.dataset: trained.checkpoint.short_edge_of(data.dataset) for data in sets}
        own_edges = {name: edge for name, edge in edges.items() if edge != trained.checkpoint.short_edge}
        views = views.at(trained.checkpoint.short_edge)
    more = [task for task in ("panoptic", "instances") if task in tasks]
    _refuse_no_segments(sets, more)
    if deep:
        asked = ask_depths(sets, trained, vectors, shown, limits)
    else:
        asked = ask(sets, trained, vectors, shown, by=by, mixed=mixed, taxonomy=taxonomy)
    for data in sets:
        if (seen := trained.checkpoint.meta.get("manifests", {}).get(f"{data.dataset}/{data.split}")) is not None:
            same = seen == data.source.get("manifest_sha256")
            what = "this split" if same else "other shards of this name: make sure that the images are others, too"
            _log.warning("%s %s: the model was trained on %s", data.dataset, data.split, what)
    measured = []
    with processes() as ranks:
        for question in asked.sets:
            if deep:
                measured.append(measure_depth(question, limits, limit, ranks, track))
            else:
                measured.append(_measure(question, more, limit, examples, worst, ranks, track))
        results = Results(
            sets=tuple(measured),
            harmonic_mean=harmonic_mean(result.metrics.miou for result in measured),
            protocol={
                **protocol(trained, asked, views, vectors, split, limit, limits),
                **({"short_edges": own_edges} if own_edges else {}),
                **({"tasks": more} if more else {}),
                **({"classes": classes.to_json()} if classes else {}),
                **({"mixed": True} if mixed else {}),
            },
            reproduce=command(
                checkpoint,
                shards,
                bank,
                out,
                datasets,
                shown if own_edges else views,
                {
                    "split": split,
                    "limit": limit,
                    "by": by,
                    "taxonomy": taxonomy,
                    "depth-crop": depth_crop,
                    "depth-max": depth_max,
                    "segment-score": segment_score,
                    "only": names_in_words(only),
                    "leave-out": names_in_words(leave_out),
                },
                mixed=mixed,
                tasks=more,
            ),
            path=out,
            mixed=asked.mixed_json(),
        )
        with ranks.same_fate():
            if ranks.rank == 0:
                results.write()
    return results


def _refuse_no_segments(sets: Sequence[EvalSet], tasks: Sequence[str]) -> None:
    """Say which sets can't be measured in segments. Raises ShardError where none can."""
    without = [data for data in sets if not data.has_segments] if tasks else []
    if without and len(without) == len(sets):
        raise ShardError(
            f"{without[0].name} has no segments (instances.png), so there is nothing to measure but mIoU",
            where=without[0].where,
            fix="Shard it from an archive with instances (`labelmerge ls --json` says where they lie), or leave out "
            "--task",
        )
    for data in without:
        _log.warning("%s has no segments: only its mIoU is measured", data.name)
    for data in sets if tasks else ():
        if data.has_segments and data.things is None:
            _log.warning("%s", all_are_things(data.name))


def _check_out(out: Path) -> None:
    """Say before the work, not after it, that its result has no place."""
    there = next((folder for folder in out.parents if folder.exists()), Path())
    with output_faults(out):
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if out.is_file():
            with out.open("rb") as stream:
                head = stream.read(_HEAD)
                cut_off = f'{{"format":"{FORMAT}"'.encode().startswith(b"".join(head.split()))
                if FORMAT.encode() not in head and not cut_off:
                    fix = "Remove it, or choose another --out"
                    raise OutputError("is there already, and holds no results", where=out, fix=fix)
    if not os.access(there, os.W_OK):
        raise OutputError("no permission to write here", where=out, fix="Choose another --out")


def _measure(
    question: Question, more: Sequence[str], limit: int | None, examples: int, worst: int, ranks: Ranks, track: Track
) -> SetResult:
    """One set, by all processes together. Raises ShardError where nothing could be measured."""
    data, space = question.data, question.data.space
    own = Semantic(space, partly=data.partly_annotated, annotated=data.annotated_classes)
    common = Mixed(space, question.mixed, data.annotated_classes) if question.mixed is not None else None
    panoptic: Panoptic | None = None
    mixed_panoptic: Panoptic | None = None
    things: InstanceTask | None = None
    jobs: list[tuple[Task[Any], Predictor]] = []
    if question.predictor is not None:
        jobs.append((own, question.predictor))
        if data.has_segments and "panoptic" in more:
            panoptic = Panoptic(space, data.things, annotated=data.annotated_classes)
            jobs.append((panoptic, question.predictor))
        if data.has_segments and "instances" in more:
            things = InstanceTask(space, data.things, data.annotated_classes)
            jobs.append((things, question.predictor))
        if ranks.rank == 0:
            _say_twins(question, question.predictor)
    elif ranks.rank == 0:
        _log.warning("%s: no label has a vector, so nothing can be predicted: mIoU 0", data.name)
    if common is not None and question.mixed_predictor is not None:
        jobs.append((common, question.mixed_predictor))
        if data.has_segments and "panoptic" in more:
            mixed_panoptic = Panoptic(space, data.things, question.mixed, data.annotated_classes)
            jobs.append((mixed_panoptic, question.mixed_predictor))
    counted = count_set(
        data,
        jobs,
        limit=limit,
        own=own,
        examples=examples,
        segments=bool(more),
        worst=worst,
        ranks=ranks,
        track=track,
    )
    found = {id(task): total for (task, _), total in zip(jobs, counted.totals, strict=True)}
    mine_alone: SemanticCounts = found.get(id(own), own.nothing())
    known = id(own) in found
    return SetResult(
        data=data,
        labels=question.labels,
        predicted_as=[int(k) for k in question.predictor.predicted_as] if question.predictor else [-1] * len(space),
        images=counted.images,
        skipped=[*data.skipped, *counted.skipped],
        ignored_pixels=mine_alone.ignored,
        confusion=mine_alone.confusion,
        metrics=own.figures(mine_alone) if known else Metrics.unpredicted(len(space)),
        ambiguity=question.aware(mine_alone) if known else None,
        mixed=common.figures(found.get(id(common), common.nothing())) if common is not None else None,
        panoptic=panoptic.figures(found[id(panoptic)]) if panoptic is not None else None,
        mixed_panoptic=mixed_panoptic.figures(found[id(mixed_panoptic)]) if mixed_panoptic is not None else None,
        instances=things.figures(found[id(things)]) if things is not None else None,
        examples=counted.examples,
        each=counted.each,
        worst=counted.worst,
    )


def _say_twins(question: Question, predictor: Predictor) -> None:
    names, dataset = question.data.space.names, question.data.dataset
    for k, meant in enumerate(predictor.predicted_as):
        if 0 <= meant != k:
            _log.warning(
                "%s: %r and %r have the same vector and can't be told apart: both are predicted as %r",
                dataset, names[meant], names[k], names[meant],
            )  # fmt: skip
