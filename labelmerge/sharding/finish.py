"""The end of `labelmerge shard`: the manifest, from the records of all shards, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmerge.errors import LayoutError, ShardError
from labelmerge.files import write_json
from labelmerge.progress import Track, no_track
from labelmerge.sharding.executors import ShardRecord
from labelmerge.sharding.outcome import ShardReport, full_manifest, refuse_bad, report_of
from labelmerge.sharding.resume import WHOLE, Request, read_request, records, sweep, working_folder, write_states
from labelmerge.shardset.croissant import write_croissant
from labelmerge.shardset.manifest import MANIFEST, UNFINISHED, read_manifest
from labelmerge.shardset.splits import find_splits
from labelmerge.text import counted, some
from labelmerge.urls import url_of


@dataclass(frozen=True)
class Unfinished:
    """A split that can't be finished yet: its folder, or the file at fault, and why."""

    where: str
    what: str


@dataclass(frozen=True)
class FinishReport:
    """What `finish_all` did.

    Attributes:
        finished: the splits that have a manifest now, and had none before.
        unfinished: the splits that can't be finished yet, and why.
        already: how many splits were finished before.
    """

    finished: tuple[ShardReport, ...]
    unfinished: tuple[Unfinished, ...]
    already: int

    def to_json(self) -> dict[str, Any]:
        return {
            "finished": [report.to_json() for report in self.finished],
            "unfinished": [asdict(each) for each in self.unfinished],
            "already": self.already,
        }


def finish(folder: Path) -> ShardReport:
    """Make the manifest of a split whose parts are all done.

    Args:
        folder: the split's, ``<out>/<dataset>/<split>``.

    Raises:
        ShardError: nothing was begun there, or parts are missing; or too much was skipped.
        OutputError: a process is still writing there; no space, no permission.
    """
    if (folder / MANIFEST).is_file():
        manifest, _ = read_manifest(folder)
        with working_folder(folder, WHOLE):
            sweep(folder)  # a process may have been killed over it
        return report_of(manifest, folder, kept=len(manifest["shards"]))
    begun = read_request(folder)  # before a folder is made to work in
    with working_folder(folder, WHOLE):
        return complete(folder, begun, records(folder, range(begun.tasks)))


def complete(folder: Path, begun: Request, made: dict[int, ShardRecord]) -> ShardReport:
    """Write the manifest of a split, if all of its shards are made.

    Args:
        folder: the split's.
        begun: what was asked for.
        made: the records, by number, of the shards that are known to be whole: none is read again.

    Raises:
        ShardError: shards are missing, or too much was skipped.
        LayoutError: no image could be used.
    """
    if missing := [number for number in range(begun.tasks) if number not in made]:
        first = some(f"{number:06d}" for number in missing)
        raise ShardError(
            f"{len(missing):,} of {counted(begun.tasks, 'shard')} are not done yet ({first})",
            where=folder,
            fix="Run the missing parts, `labelmerge shard … --part I/N`, or the same command without --part",
        )
    manifest = full_manifest(begun.manifest, list(made.values()))
    if not manifest["counts"]["written"]:
        sweep(folder)  # there is nothing to go on from, and a mended recipe must not be refused because of it
    refuse_bad(manifest, begun.max_skip_ratio, folder)
    write_croissant(folder, manifest)
    write_states(folder, {number: made[number].state for number in range(begun.tasks)})
    write_json(folder / MANIFEST, manifest)
    sweep(folder)
    return report_of(manifest, folder, kept=0)


def finish_all(folders: Sequence[Path], track: Track = no_track) -> FinishReport:
    """Make the manifest of every split under `folders` that has none, from what its parts have recorded.

    Args:
        folders: splits, datasets, or folders of datasets.
        track: progress over splits.

    Raises:
        ShardError: there are no shards at all. Splits whose parts aren't all done are in the report.
        OutputError: no space, no permission; a process is still writing there.
    """
    for url in filter(None, map(url_of, folders)):
        raise ShardError("is a URL: splits are finished where `labelmerge shard` wrote them", where=url)
    splits = find_splits(folders, unfinished=True)
    todo = [folder for folder in splits if (folder / UNFINISHED).is_dir() or not (folder / MANIFEST).is_file()]
    finished, unfinished = [], []
    for folder in track(todo, "finishing splits", len(todo)):
        try:
            finished.append(finish(folder))
        except (ShardError, LayoutError) as error:
            what = f"{error.what}. {error.fix}" if error.fix else error.what
            unfinished.append(Unfinished(str(error.where or folder), what))
    return FinishReport(tuple(finished), tuple(unfinished), len(splits) - len(todo))
