"""What an unfinished `labelmerge shard` leaves in its folder, so that the same command can go on from there.

`.unfinished/run.json` says what was asked for, and a file beside it what became of each shard. While a process works,
the hidden folder `.<split>-work` beside the split's holds its locks, and lists that are too long for memory.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmerge.errors import OutputError, ShardError
from labelmerge.files import locked, output_faults, sha256_file, write_json
from labelmerge.parsing import parse_json
from labelmerge.sharding.executors import ShardRecord
from labelmerge.sharding.source.state import State
from labelmerge.shardset.manifest import MANIFEST, UNFINISHED, Types, manifest_problem, read_manifest, wrong_types
from labelmerge.text import some

WHOLE = (1, 1)
"""The part of a run that is all of it."""

_RUN = "run.json"
_STATES = ".sources.json"
_REQUEST_TYPES: Types = {"tasks": int, "max_skip_ratio": (int, float, type(None)), "manifest": dict}
_OTHER_OUT = "Remove the folder, or choose another --out"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        tasks: how many shards there will be, empty ones included.
        max_skip_ratio: as the user gave it.
        manifest: the split's manifest, as it is before any shard is made.
    """

    tasks: int
    max_skip_ratio: float | None
    manifest: dict[str, Any]


@contextmanager
def working_folder(folder: Path, part: tuple[int, int]) -> Iterator[Path]:
    """A folder for lists that are too long for memory, beside the split's, while no other process does the same part.

    Nothing is left of it, nor of folders made for it, unless something was written into the split's folder.
    """
    existed = [parent for parent in (folder, *folder.parents) if parent.is_dir()]
    name = f"part-{part[0]}-of-{part[1]}" if part != WHOLE else "whole"
    work = folder.parent / f".{folder.name}-work"
    with output_faults(folder):
        work.mkdir(parents=True, exist_ok=True)
    try:
        with (
            locked(work / "lock", f"the {folder.name} split", shared=part != WHOLE),
            locked(work / f"{name}.lock", f"part {part[0]}/{part[1]} of the {folder.name} split"),
        ):
            scratch = work / name
            # Left by processes that were killed; where the whole is locked, no part is being done.
            for left_over in work.glob("part-*") if part == WHOLE else ():
                if left_over.is_dir():
                    shutil.rmtree(left_over, ignore_errors=True)
                else:
                    left_over.unlink(missing_ok=True)
            shutil.rmtree(scratch, ignore_errors=True)
            with output_faults(scratch):
                scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    finally:
        for made in (work, *(parent for parent in (folder, *folder.parents) if parent not in existed)):
            with suppress(OSError):  # not empty: another process works here, or there are shards
                made.rmdir()


def finished_manifest(folder: Path, wanted: Request) -> dict[str, Any] | None:
    """The manifest, if the same was asked for before, it is there, and its shards are whole.

    Raises:
        ShardError: the folder holds shards made from other files or options, or a manifest that can't be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest, _ = read_manifest(folder)
    except ShardError as error:
        raise ShardError(error.what, where=error.where, fix=_OTHER_OUT) from error
    _refuse_other(folder, manifest, wanted.manifest)
    try:
        whole = all(_is_whole(folder, entry) for entry in manifest["shards"])
    except OSError as error:
        raise ShardError(f"can't be read ({error.strerror})", where=error.filename, fix=_OTHER_OUT) from error
    if whole:
        sweep(folder)
        return manifest
    _log.warning("%s: a shard is damaged or gone: all are made again", folder)
    _write_request(folder, wanted)
    with output_faults(folder):
        path.unlink()
    return None


def begin(folder: Path, wanted: Request, ours: range, alone: bool) -> dict[int, ShardRecord]:
    """Prepare a split's folder for a run, or for a part of it.

    Args:
        folder: the split's.
        wanted: what is asked for.
        ours: numbers of the shards to make.
        alone: whether no other part can be under way.

    Returns:
        Those of `ours`, by number, that an earlier run of the same command has finished.

    Raises:
        ShardError: the folder holds what was made from other files or options.
    """
    there: dict[int, ShardRecord] = {}
    begun = (folder / UNFINISHED / _RUN).is_file()
    if begun and alone and not _has_shards(folder):
        begun = False  # but nothing was made: whatever was asked for then can't be mixed with this
    if begun:
        _refuse_other(folder, read_request(folder).manifest, wanted.manifest)
        there = records(folder, ours)
    elif any(folder.glob("*.tar")):
        raise ShardError(
            "holds tar files that no manifest describes", where=folder, fix="Remove them, or choose another --out"
        )
    _write_request(folder, wanted)
    with output_faults(folder):
        for leftover in [path for path in folder.glob(".*.tar.*.tmp") if _task_of(path) in ours]:
            leftover.unlink(missing_ok=True)
    if there:
        _log.info("resuming: %d of %d shards are done", len(there), len(ours))
    return there


def read_request(folder: Path) -> Request:
    """What was asked for in a split's folder. Raises ShardError."""
    path = folder / UNFINISHED / _RUN
    if not path.is_file():
        raise ShardError("nothing was begun here", where=folder, fix="Give the folder <out>/<dataset>/<split>")
    try:
        begun = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ShardError(f"is damaged ({error})", where=path, fix=_OTHER_OUT) from error
    if wrong := wrong_types(begun, _REQUEST_TYPES) or manifest_problem(begun["manifest"]):
        raise ShardError(f"is damaged ({wrong})", where=path, fix=_OTHER_OUT)
    return Request(begun["tasks"], begun["max_skip_ratio"], begun["manifest"])


def write_record(folder: Path, made: ShardRecord) -> None:
    """Note down a shard that is in place. Raises OutputError."""
    write_json(folder / UNFINISHED / f"{made.number:06d}.json", made.to_json())


def records(folder: Path, numbers: range) -> dict[int, ShardRecord]:
    """The shards among `numbers` that are finished and whole."""
    there = {}
    for path in sorted((folder / UNFINISHED).glob("[0-9]*.json")):
        if int(path.stem) in numbers:
            try:
                made = ShardRecord.from_json(parse_json(path.read_bytes()))
                if made.samples == 0 or _is_whole(folder, made.to_json()):
                    there[made.number] = made
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ShardError(f"is damaged ({error})", where=path, fix=_OTHER_OUT) from error
    return there


def write_states(folder: Path, states: Mapping[int, State]) -> None:
    """Keep beside the manifest what the source files of each shard were. Raises OutputError."""
    write_json(folder / _STATES, {f"{number:06d}": list(states[number]) for number in sorted(states)})


def refuse_changed(folder: Path, as_before: Callable[[int, State], bool]) -> None:
    """Refuse finished shards whose sources are others by now; older shards do not say what theirs were.

    Args:
        folder: the split's.
        as_before: whether the files of a shard, by number, are still in a state.

    Raises:
        ShardError: some are not.
    """
    path = folder / _STATES
    if not path.is_file():
        return
    try:
        states = parse_json(path.read_bytes())
        changed = [name for name, (times, contents) in states.items() if not as_before(int(name), (times, contents))]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"is damaged ({error})", where=path, fix=_OTHER_OUT) from error
    if changed:
        raise ShardError(
            f"files of the dataset have changed since its shards were made (shard {some(changed)}; "
            f"{len(changed)} of {len(states)})",
            where=folder,
            fix="Remove the folder to make them again, or choose another --out",
        )


def _has_shards(folder: Path) -> bool:
    """Whether a run, finished or not, has made any."""
    return any((folder / UNFINISHED).glob("[0-9]*.json")) or any(folder.glob("*.tar"))


@contextmanager
def nothing_begun(folder: Path, alone: bool) -> Iterator[None]:
    """Where the block fails before the first shard is made, leave no trace of the request, which helps nobody go on.

    Args:
        folder: the split's.
        alone: whether no other part can be under way, which goes by the same request.
    """
    try:
        yield
    except BaseException:
        if alone and not _has_shards(folder):
            with suppress(OSError, OutputError):  # what failed is what is to be said
                sweep(folder)
        raise


def sweep(folder: Path) -> None:
    """Take away what is not needed beside a manifest, also where a process was killed over it."""
    with output_faults(folder):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        if (folder / UNFINISHED).is_dir():
            shutil.rmtree(folder / UNFINISHED)


def _write_request(folder: Path, wanted: Request) -> None:
    write_json(folder / UNFINISHED / _RUN, asdict(wanted))


def _task_of(path: Path) -> int:
    """The number of the shard that a temporary file was to become."""
    number = path.name.split(".tar.")[0].rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _is_whole(folder: Path, entry: dict[str, Any]) -> bool:
    path = folder / entry["name"]
    return path.is_file() and path.stat().st_size == entry["bytes"] and bool(sha256_file(path) == entry["sha256"])


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    """All that decides the shards' bytes."""
    return {
        "labelmerge": manifest["labelmerge"],
        "recipe": manifest["recipe"]["sha256"],
        "variant": manifest["variant"],
        "label_space": manifest["label_space"]["hash"],
        "options": manifest["options"],
        "box_teacher": manifest["box_teacher"],
        "candidates": manifest["candidates"],
    }


def _refuse_other(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to mix: both are manifests, of runs that may not have ended."""
    theirs, ours = _identity(found), _identity(wanted)
    if theirs == ours:
        return
    before = theirs["options"]
    changes = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in ours["options"].items()
        if before.get(name) != value
    ]
    other = {
        "labelmerge": "labelmerge's version",
        "recipe": "the recipe",
        "variant": "the layout",
        "label_space": "the classes",
        "box_teacher": "the box teacher's weights",
        "candidates": "the dataset's files",
    }
    changes += [f"{what} changed since" for name, what in other.items() if theirs[name] != ours[name]]
    raise ShardError(
        f"holds shards made from other files or options ({'; '.join(changes)})",
        where=folder,
        fix=_OTHER_OUT,
    )
