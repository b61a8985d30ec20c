"""Who makes the shards: this process, several, or a Ray cluster. The shards are the same."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from labelmerge.errors import LabelmergeError, LayoutError, OutputError, SampleError, UsageError
from labelmerge.files import atomic_file
from labelmerge.memory import keep_memory
from labelmerge.sharding.make import MadeSample, Tally, make_sample
from labelmerge.sharding.plan import Options, Task
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.source import Source
from labelmerge.sharding.source.state import State, state_of
from labelmerge.sharding.teacher import Waiting, load_teacher
from labelmerge.shardset.tar import ShardWriter, Writable
from labelmerge.workers import interrupts_held_back, stopping, worker_pool


@dataclass(frozen=True)
class Job:
    """What every worker must know.

    Attributes:
        source, options: what is asked for.
        folder: where shards go; None: nowhere, it's a trial.
        device: of the teacher of boxes; None: a GPU if there is one.
    """

    source: Source
    options: Options
    folder: Path | None
    device: str | None = None


@dataclass
class ShardRecord:
    """What became of one task. Where `samples` is 0 there is no file.

    Attributes:
        number, name: the task's number and the file's name.
        samples, bytes, sha256: of the file.
        skipped: [{"path", "reason"}].
        class_pixels, class_boxes, ignored_pixels, sizes, notes: as in the manifest, of this shard.
        depth_pixels: those with a known depth.
        sources: the first half of the SHA-256 of every sample's source image, to find duplicates by.
        state: of the files that the shard is made from (see `state`), before they were read.
    """

    number: int
    name: str
    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    skipped: list[dict[str, str]] = field(default_factory=list)
    class_pixels: Counter[int] = field(default_factory=Counter)
    class_boxes: Counter[int] = field(default_factory=Counter)
    ignored_pixels: int = 0
    depth_pixels: int = 0
    sizes: dict[str, Any] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    state: State = ("", "")

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShardRecord:
        """The inverse of `to_json`, after a trip through a JSON file (where all keys are strings)."""
        pixels, boxes = (
            Counter({int(k): v for k, v in data[name].items()}) for name in ("class_pixels", "class_boxes")
        )
        times, contents = data["state"]
        return cls(
            **{
                **data,
                "class_pixels": pixels,
                "class_boxes": boxes,
                "notes": Counter(data["notes"]),
                "state": (times, contents),
            }
        )


EXECUTORS = ("local", "ray")


def make_shards(
    job: Job, tasks: Iterable[Task], workers: int | None, executor: str = "local"
) -> Iterator[ShardRecord | None]:
    """Make shards. Yields None after every item, and the record of each shard when it is in place.

    Args:
        job: what to make.
        tasks: taken one by one, only as fast as they are worked off.
        workers: how many at a time. None: with Ray as many as the cluster has CPUs, else 1.
        executor: ``local``: processes of this machine (1: this one); ``ray``: the cluster that `RAY_ADDRESS` names, or
            else one that is started here and ended afterwards. All its machines must see the dataset and the folder
            of the shards.

    Raises:
        OutputError: a shard can't be written.
        LayoutError: a folder of the dataset is gone.
        UsageError: Ray isn't installed.
        LabelmergeError: a worker died, or the cluster can't be reached.
    """
    if executor == "ray":
        yield from _run_ray(job, tasks, workers)
    elif workers in (None, 1):
        for task in tasks:
            yield (yield from make_shard(job, task))
    else:
        assert workers is not None
        yield from _run_pool(job, tasks, workers)


def make_shard(job: Job, task: Task) -> Generator[None, None, ShardRecord]:
    """Make one shard; yields after every item, and returns the record of the shard."""
    keep_memory()
    dataset, split = job.source.recipe.name, job.source.split
    shard = ShardRecord(task.number, f"{dataset}-{split}-{task.number:06d}.tar")
    if job.folder is not None:
        shard.state = state_of(job.source, [item for _, item in task.items])
    tally = Tally(shard.class_pixels, shard.class_boxes, notes=shard.notes)
    teacher = None if job.options.box_teacher is None else load_teacher(job.options.box_teacher, job.device)
    target: AbstractContextManager[Writable] = (
        nullcontext(_Nowhere()) if job.folder is None else atomic_file(job.folder / shard.name)
    )
    try:
        with target as stream, ShardWriter(stream) as writer:
            waiting = Waiting(teacher)
            for number, item in task.items:
                key = f"{dataset}-{split}-{number:09d}"
                try:
                    sample = make_sample(job.source, item, key, job.options, tally)
                except SampleError as error:
                    _refuse_if_gone(job.source, error)
                    shard.skipped.append({"path": item.path, "reason": _reason(error, job.source.root, item.path)})
                else:
                    _write(writer, waiting.add(sample))
                    shard.samples += 1
                yield
            if shard.samples == 0:
                raise _Empty
            _write(writer, waiting.rest())
            writer.close()
            shard.bytes, shard.sha256 = writer.bytes, writer.sha256
    except _Empty:
        return shard
    shard.depth_pixels = tally.depth_pixels
    shard.ignored_pixels, shard.sizes, shard.sources = tally.ignored_pixels, tally.sizes.to_json(), tally.sources
    return shard


def _write(writer: ShardWriter, samples: Iterable[MadeSample]) -> None:
    for sample in samples:
        writer.write(sample.key, sample.members)


class _Empty(Exception):
    """Keeps a shard without samples from taking its name."""


def _refuse_if_gone(source: Source, error: SampleError) -> None:
    """Raises LayoutError where not only a file but its whole folder is gone: a disk was unplugged, a network share went
    away. Everything after it would be skipped, and the shards would look finished."""
    if isinstance(error.where, Path) and READERS[source.reader].image is None:
        folder = error.where.parent
        if not os.path.isdir(folder):
            raise LayoutError(
                "was there at the start, and is gone",
                where=folder,
                fix="Bring it back and run the same command again: finished shards are kept",
            ) from error


def _reason(error: SampleError, root: Path, path: str) -> str:
    """The error without the image's own path, and with others under the root."""
    where = None if error.where is None else os.path.relpath(error.where, root)
    return error.what if where in (None, path) else f"{where}: {error.what}"


class _Nowhere:
    def write(self, data: bytes, /) -> int:
        return len(data)


# --- several processes ------------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """The parent has asked to stop: nothing is kept of the shard at hand."""


_job: Job


def _run_pool(job: Job, tasks: Iterable[Task], workers: int) -> Iterator[ShardRecord | None]:
    fix = "Run the same command again with fewer --workers: finished shards are kept"
    with worker_pool(workers, fix, _start_worker, job) as pool:
        sizes: dict[Future[ShardRecord], int] = {}
        waiting = iter(tasks)
        while True:
            # One task more than there are workers, so that none has to wait, and memory need not hold them all.
            for task in islice(waiting, workers + 1 - len(sizes)):
                with interrupts_held_back():  # it may start a worker
                    future = pool.submit(_work, task)
                sizes[future] = len(task.items)
            if not sizes:
                return
            for future in wait(sizes, return_when=FIRST_COMPLETED).done:
                shard = future.result()
                yield from repeat(None, sizes.pop(future))
                yield shard


def _start_worker(job: Job) -> None:
    global _job
    _job = job


def _work(task: Task) -> ShardRecord:
    making = make_shard(_job, task)
    try:
        while True:
            if stopping():
                making.close()
                raise _Stopped
            next(making)
    except StopIteration as done:
        shard: ShardRecord = done.value
        return shard


# --- a cluster --------------------------------------------------------------------------------------------------------


def _run_ray(job: Job, tasks: Iterable[Task], workers: int | None) -> Iterator[ShardRecord | None]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray", fix="pip install 'labelmerge-seg[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                num_cpus=None if os.environ.get("RAY_ADDRESS") else workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            address = os.environ.get("RAY_ADDRESS", "none given")
            raise LabelmergeError(
                f"no Ray cluster can be reached (RAY_ADDRESS: {address})", fix="Start it, or unset RAY_ADDRESS"
            ) from error
    try:
        there = ray.put(job)
        at_a_time = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        gpus = 1 if job.options.box_teacher and ray.cluster_resources().get("GPU") else 0
        work = ray.remote(num_cpus=1, num_gpus=gpus)(_work_remotely)
        sizes: dict[Any, int] = {}
        waiting = iter(tasks)
        while True:
            for task in islice(waiting, at_a_time + 1 - len(sizes)):
                sizes[work.remote(there, task)] = len(task.items)
            if not sizes:
                return
            done, _ = ray.wait(list(sizes))
            record = ray.get(done[0])
            if isinstance(record, LabelmergeError):
                raise record
            _refuse_invisible(job, record)
            yield from repeat(None, sizes.pop(done[0]))
            yield record
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise LabelmergeError(
            f"a Ray worker failed ({first})", fix="Run the same command again: finished shards are kept"
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _work_remotely(job: Job, task: Task) -> ShardRecord | LabelmergeError:
    """Errors travel as values: Ray would wrap them."""
    making = make_shard(job, task)
    try:
        while True:
            next(making)
    except StopIteration as done:
        shard: ShardRecord = done.value
        return shard
    except LabelmergeError as error:
        return error


def _refuse_invisible(job: Job, record: ShardRecord) -> None:
    if job.folder is not None and record.samples and not (job.folder / record.name).is_file():
        raise OutputError(
            f"a Ray worker wrote {record.name}, but it is not here",
            where=job.folder,
            fix="Give an --out on a file system that all machines of the cluster share",
        )
