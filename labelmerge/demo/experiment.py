"""The experiment on the toy worlds: the whole pipeline, once for every way to merge label spaces.

All ways share data, model, steps, batches, seed, losses and evaluation; they differ in the label vectors only
(docs/demo.md). Everything here calls the library as a user would.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from labelmerge.catalog import Recipe, load_descriptions
from labelmerge.demo.results import MERGED, SINGLE, Scores, scores_of
from labelmerge.demo.worlds import HELD_OUT, TRAINING, WORLDS, recipe_of, taxonomies
from labelmerge.descriptions import write_descriptions
from labelmerge.progress import Track, no_track

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    Attributes:
        images: of each dataset.
        steps: of each training run.
        batch_size, crop: of each batch.
        single: the datasets that a model is trained on alone.
        parallel: models are trained side by side, one on each CPU core.
        photograph: also segment a photograph.
    """

    images: int
    steps: int
    batch_size: int
    crop: int
    single: tuple[str, ...]
    parallel: bool
    photograph: bool = False


# One dataset of streets, one of all scenes, one of many objects: all seven that have masks would double the time.
FULL = Size(
    images=60,
    steps=750,
    batch_size=9,
    crop=64,
    single=("cityscapes", "ade20k", "coco_panoptic"),
    parallel=True,
    photograph=True,
)
QUICK = Size(images=6, steps=6, batch_size=9, crop=32, single=("cityscapes",), parallel=False)
# The same for every model. Labels' cosines differ by a few tenths: a short run has no time to learn a low temperature.
PAPER = {"merge": "text", "negatives": "all"}
SETTINGS = {"lr": 3e-3, "temperature": 0.03}

_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Workplace:
    """Where one world's experiment lies."""

    root: Path

    @property
    def worlds(self) -> Path:
        return self.root / "worlds"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def run(self, method: str) -> Path:
        return self.root / "runs" / method.replace("/", "-")

    def results(self, method: str) -> Path:
        return self.root / "results" / f"{method.replace('/', '-')}.json"


@dataclass(frozen=True)
class Banks:
    """The label vectors of each way to merge: folders of banks."""

    root: Path

    @property
    def descriptions(self) -> Path:
        return self.root / "descriptions"

    def of(self, method: str) -> Path:
        """What a way to merge is trained from; concepts and single datasets speak the language of sentences, too."""
        return self.root / "banks" / (method if method in ("naive", "words") else "sentences")


def embed(banks: Banks, worlds: Path, track: Track = no_track) -> None:
    """Describe the labels that the toy datasets use, and make the three banks of the merged ways.

    The descriptions are those that ship; the user's own set brings its own.
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.embed.embed import embed_labels
    from labelmerge.merge.baselines import one_hot_bank

    recipes = [_described(recipe_of(dataset, worlds), banks.descriptions) for dataset in WORLDS]
    for method in ("words", "sentences"):
        embed_labels(recipes, banks.of(method), encoder="offline", words=method == "words", track=track)
    one_hot_bank(Bank.load(banks.of("sentences")), TRAINING).save(banks.of("naive"))


def _described(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with only the labels that its toy dataset uses, written to `folder`."""
    path = folder / f"{recipe.name}.csv"
    used = taxonomies()[recipe.name]
    write_descriptions(path, [row for row in load_descriptions(recipe) if row.name in used])
    return replace(recipe, descriptions=path)


def shard_worlds(place: Workplace, track: Track = no_track) -> None:
    """Read every toy dataset by its recipe and write it as shards."""
    from labelmerge.sharding.shard import shard

    for dataset in track(WORLDS, "sharding"):
        recipe = recipe_of(dataset, place.worlds)
        shard(recipe, place.worlds / dataset, WORLDS[dataset].split, place.shards)


def train_all(
    place: Workplace,
    banks: Banks,
    size: Size,
    seed: int,
    track: Track = no_track,
    aside: Callable[[], T | None] | None = None,
) -> tuple[list[Scores], T | None]:
    """Train and measure one model for every method. The results do not depend on how many run side by side.

    Args:
        aside: something else to do, when a core has no model left; what it returns is returned, too.
    """
    methods = [*MERGED, *(f"{SINGLE}/{dataset}" for dataset in size.single)]
    workers = min(len(methods), os.cpu_count() or 1) if size.parallel else 1
    if workers == 1:
        scores = [train_and_measure(method, place, banks, size, seed, _named(track, method)) for method in methods]
        return scores, aside() if aside else None
    # Spawned, because a fork would inherit the locks of the threads that the encoder has used.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        # The longest first, so that no process waits long for the last one.
        first = sorted(methods, key=lambda method: (method != "concepts", method not in MERGED))
        by_method = {
            method: pool.submit(_quietly, partial(train_and_measure, method, place, banks, size, seed))
            for method in first
        }
        last = pool.submit(_quietly, aside) if aside else None
        jobs = [by_method[method] for method in methods]
        steps = _steps(jobs, [place.run(method) for method in methods], size.steps)
        try:
            for _ in track(steps, f"training {len(methods)} models, {workers} at a time", len(methods) * size.steps):
                pass
            return [job.result() for job in jobs], last.result() if last else None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _steps(jobs: Sequence[Future[Scores]], runs: Sequence[Path], steps: int) -> Iterator[None]:
    """One item for every step that some run has logged, until all jobs are done; raises what a job raised."""
    from labelmerge.train.log import read_log

    seen = 0
    while True:
        over = all(job.done() for job in jobs)
        logs = [read_log(run) for run in runs]
        done = len(runs) * steps if over else sum(log[-1]["step"] if log else 0 for log in logs)
        for job in jobs:
            if job.done():
                job.result()
        yield from [None] * (done - seen)
        seen = max(done, seen)
        if over:
            return
        time.sleep(_POLL_SECONDS)


def _quietly(job: Callable[[], T]) -> T:
    """A job in a process of its own, which does not have the command line's filter of warnings; on one thread."""
    with warnings.catch_warnings(action="ignore"), _one_thread():
        return job()


def train_and_measure(
    method: str, place: Workplace, banks: Banks, size: Size, seed: int, track: Track = no_track
) -> Scores:
    """Train one model the way `method` says and evaluate it zero-shot on the held-out sets."""
    from labelmerge.evaluate.evaluate import evaluate
    from labelmerge.train.config import load_config
    from labelmerge.train.loop import train

    datasets = TRAINING if method in MERGED else (method.partition("/")[2],)
    settings = {
        **SETTINGS,
        **({} if method == "concepts" else PAPER),
        "steps": size.steps,
        "batch_size": size.batch_size,
        "crop": size.crop,
        "seed": seed,
        "checkpoint_every": size.steps,
        "log_every": max(size.steps // 60, 1),
        "warmup": min(20, size.steps // 2),
    }
    config = load_config("tiny", overrides=settings)
    bank = banks.of(method)
    shards = [place.shards / dataset for dataset in datasets]
    held_out = [place.shards / dataset for dataset in HELD_OUT]
    with _one_thread():  # so small a network is no faster on two cores; two networks are
        run = train(shards, bank, place.run(method), config=config, device="cpu", track=track)
        # Concepts have vectors of their own, which lie in the checkpoint.
        own = None if method == "concepts" else bank
        results = evaluate(run.run, held_out, own, place.results(method), device="cpu", track=track)
    return scores_of(method, results.to_json(), run.seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _named(track: Track, name: str) -> Track:
    def wrapped(things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
        return track(things, f"{name}: {what}", total)

    return wrapped
