"""One set, image by image: what a predictor answers, and what each task counts of it."""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from labelmerge.errors import SampleError, ShardError
from labelmerge.evaluate.examples import Example, chosen, draw_example
from labelmerge.evaluate.images import ImageResult, worst_first
from labelmerge.evaluate.sets import EvalSet
from labelmerge.methods.predictor import Predictor
from labelmerge.processes import Ranks
from labelmerge.progress import Track, no_track
from labelmerge.shardset.samples import LabelledImage
from labelmerge.tasks.depth import Depth
from labelmerge.tasks.semantic import Semantic
from labelmerge.tasks.task import Task

_AHEAD = 2  # images that are read while the model works

_log = logging.getLogger("labelmerge.evaluate.evaluate")

Jobs = Sequence[tuple[Task[Any], Predictor]]


@dataclass
class _Part:
    """What one process has counted of one set, for each task; `skipped` begins with the sample's number."""

    counts: list[Any]
    examples: list[Example] = field(default_factory=list)
    each: list[ImageResult] = field(default_factory=list)
    worst: list[tuple[float, Example]] = field(default_factory=list)
    images: int = 0
    skipped: list[tuple[int, str, str]] = field(default_factory=list)

    def bar(self, most: int) -> float:
        """The accuracy below which an image is among the worst `most` so far."""
        if len(self.worst) < most:
            return math.inf
        return self.worst[-1][0] if most else -math.inf


@dataclass(frozen=True)
class Counted:
    """What all processes together have counted of one set.

    Attributes:
        totals: for each job.
        images: how many were counted.
        skipped: key and reason of those that could not be used.
        examples: a few of the images.
        each: how well each image with labels was segmented, the worst first.
        worst: pictures of the first of these.
    """

    totals: list[Any]
    images: int
    skipped: list[tuple[str, str]]
    examples: list[Example]
    each: list[ImageResult]
    worst: list[Example]


def count_set(
    data: EvalSet,
    jobs: Jobs,
    *,
    limit: int | None,
    own: Semantic | None,
    examples: int,
    segments: bool,
    ranks: Ranks,
    track: Track,
    nothing: str = "a labelled pixel",
    depth: bool = False,
    worst: int = 0,
) -> Counted:
    """One set, by all processes together.

    Args:
        own: the task that says how well each image was segmented, and whose answers are drawn; None: none does.
        examples: of how many images they are drawn.
        segments, depth: read these of the samples, too.
        nothing: what no image has where there is nothing to measure.
        worst: of how many of the worst images the answers of `own` are drawn, too.

    Raises:
        ShardError: nothing could be measured.
    """
    count = min(data.count, limit or data.count) if jobs else 0
    every = [place * data.count // count for place in range(count)]
    numbers, drawn = ranks.share(every), set(chosen(every, examples))
    mine = _Part([task.nothing() for task, _ in jobs])
    with ranks.same_fate():
        progress = track if ranks.rank == 0 else no_track
        what = f"evaluating {data.dataset} {data.split}"
        for number, picture in progress(_read_ahead(data, numbers, segments, depth), what, len(numbers)):
            try:
                shown = picture()
                counted, each, example = _count(jobs, shown, own, number in drawn, mine.bar(worst))
            except SampleError as error:
                _log.warning("skipped %s", error)
                mine.skipped.append((number, str(error.where or f"sample {number}"), error.what))
            else:
                pairs = zip(jobs, mine.counts, counted, strict=True)
                mine.counts = [task.total([before, more]) for (task, _), before, more in pairs]
                mine.images += 1
                if each is not None:
                    mine.each.append(each)
                if example is not None:
                    example = replace(example, number=number)
                    if number in drawn:
                        mine.examples.append(example)
                    if each is not None:
                        mine.worst = _worst([*mine.worst, (each.pixel_accuracy, example)], worst)
    parts = ranks.gather(mine)
    totals = [task.total([part.counts[place] for part in parts]) for place, (task, _) in enumerate(jobs)]
    skipped = [(key, reason) for _, key, reason in sorted(entry for part in parts for entry in part.skipped)]
    if jobs and not jobs[0][0].measured(totals[0]):
        why = f"{len(skipped)} can't be used; the first: {skipped[0][1]}" if skipped else "there are no labels"
        raise ShardError(
            f"none of {count} images has {nothing} that could be measured ({why})",
            where=data.where,
            fix="`labelmerge verify` says more of shards, `labelmerge shard --check` of a dataset",
        )
    return Counted(
        totals,
        sum(part.images for part in parts),
        skipped,
        sorted((one for part in parts for one in part.examples), key=lambda one: one.number),
        worst_first(one for part in parts for one in part.each),
        [example for _, example in _worst([one for part in parts for one in part.worst], worst)],
    )


def _worst(images: list[tuple[float, Example]], most: int) -> list[tuple[float, Example]]:
    """Those of the lowest accuracy, as `worst_first` has them."""
    return heapq.nsmallest(most, images, key=lambda image: (image[0], image[1].number))


def _read_ahead(
    data: EvalSet, numbers: Sequence[int], segments: bool, depth: bool
) -> Iterator[tuple[int, Callable[[], LabelledImage]]]:
    """Each number with a function that returns its sample, or raises: a thread reads on while the model works."""
    with ThreadPoolExecutor(1) as reader:
        remaining = iter(numbers)
        waiting: list[tuple[int, Future[LabelledImage]]] = []
        try:
            while True:
                waiting += [
                    (n, reader.submit(data.read, n, segments, depth)) for n in islice(remaining, _AHEAD - len(waiting))
                ]
                if not waiting:
                    return
                number, future = waiting.pop(0)
                yield number, future.result
        finally:
            for _, future in waiting:
                future.cancel()


def _count(
    jobs: Jobs, picture: LabelledImage, own: Semantic | None, drawn: bool, bar: float
) -> tuple[list[Any], ImageResult | None, Example | None]:
    """Segment an image and count what is right and wrong, for `own` in words and pictures, too.

    Args:
        drawn: its answer is drawn; if not, it is where the pixel accuracy is below `bar`.

    Raises:
        SampleError: it can't be segmented or measured.
    """
    counted, each, example = [], None, None
    for task, predictor in jobs:
        ways = {"classes": predictor.classes, "segments": predictor.segments, "instances": predictor.instances}
        try:
            prediction: Any
            if isinstance(task, Depth):
                prediction = predictor.depth(picture.image, task.labels_of(picture))
            else:
                prediction = ways[task.asks](picture.image)
        except SampleError as error:
            raise SampleError(error.what, where=picture.key, fix=error.fix) from error
        counted.append(task.count(picture, prediction))
        if own is not None and task is own:
            each = ImageResult.of(picture, counted[-1])
            if drawn or (each is not None and each.pixel_accuracy < bar):
                example = draw_example(picture, prediction, own)
    return counted, each, example
