"""`labelmerge push`: shards, exports, banks and runs → a URL, with a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge.bank.store import INDEX, read_index
from labelmerge.errors import BankError, CheckpointError, LabelmergeError, ShardError, UsageError, near_path
from labelmerge.files import read_text, sha256_file
from labelmerge.progress import Track, no_track
from labelmerge.push.cards import Card, bank_card, export_card, run_card, shards_card, with_licence
from labelmerge.shardset.croissant import CROISSANT
from labelmerge.shardset.manifest import MANIFEST, read_manifest
from labelmerge.shardset.splits import find_splits
from labelmerge.upload import CARD, Content, Uploaded, check_url, is_hub, upload

SHARDS, EXPORT, BANK, RUN = "shards", "export", "bank", "run"
_DAMAGED: dict[str, type[LabelmergeError]] = {SHARDS: ShardError, BANK: BankError, RUN: CheckpointError}
_OF_RUNS = ("config.toml", "log.jsonl", "curves.png", "finished.json")


@dataclass(frozen=True)
class PushReport:
    """What was pushed.

    Attributes:
        folder: what.
        kind: ``shards``, ``export``, ``bank`` or ``run``.
        uploaded: where to, and how much.
        own_card: whether the folder has a README.md of its own, which is the card.
    """

    folder: Path
    kind: str
    uploaded: Uploaded
    own_card: bool

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "kind": self.kind, "own_card": self.own_card, **vars(self.uploaded)}


def push(
    folder: Path,
    url: str,
    *,
    licence: str | None = None,
    replace: bool = False,
    public: bool = False,
    state: bool = False,
    track: Track = no_track,
) -> PushReport:
    """Upload a folder that labelmerge wrote, with a card: README.md, which says what it is and how to load it.

    Only what belongs to it goes: of shards what manifests list, of a bank its versions, of a run its settings, log,
    results and newest checkpoint. A README.md in the folder is the card; else one is made.

    Args:
        folder: shards (a split, a dataset or a folder of datasets), what `export` wrote, a bank, a run or a checkpoint.
        url: ``hf://datasets/OWNER/NAME``, ``hf://OWNER/NAME`` for a run; or a folder at any URL of fsspec's.
        licence: for the card; unknown by default.
        replace: files that are there and differ.
        public: whether everybody may see a repository that is made.
        state: of a run, also what resuming needs.
        track: progress over files.

    Raises:
        UsageError: the folder is nothing of this kind, or the address can't be one.
        ShardError, BankError, CheckpointError: it is unfinished or damaged.
        RemoteError: other files are there, or the place can't be reached, or refuses.
    """
    check_url(url)
    if public and not is_hub(url):
        raise UsageError("only the hub's repositories can be made public", fix="Leave --public out")
    place = Path(url.removeprefix("file://")) if url.startswith("file://") else None
    if place is not None and place.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{url} is in {folder} itself", fix="Push to another folder")
    kind, files, card = _look(folder, state)
    if state and kind != RUN:
        raise UsageError(f"{folder} is no run: there is nothing to resume", fix="Leave --state out")
    for name, sha256 in _hashes(folder, kind, files).items():
        try:
            whole = sha256_file(folder / name) == sha256
        except OSError as error:
            raise _DAMAGED[kind](f"can't be read ({error.strerror})", where=folder / name) from error
        if not whole:
            raise _DAMAGED[kind]("is damaged: its SHA-256 is another than was noted of it", where=folder / name)
    own = folder / CARD
    has_own = own.is_file()
    content: dict[str, Content] = {name: folder / name for name in files}
    if not has_own:
        content[CARD] = card(url).text(licence).encode()
    elif licence is None:
        content[CARD] = own
    else:
        content[CARD] = with_licence(read_text(own, UsageError), licence).encode()
    uploaded = upload(
        content,
        url,
        kind="model" if kind == RUN else "dataset",
        replace=replace,
        public=public,
        own_card=has_own,
        track=track,
    )
    return PushReport(folder, kind, uploaded, has_own)


def _look(folder: Path, state: bool) -> tuple[str, list[str], Callable[[str], Card]]:
    """What a folder is, its files, and what makes its card."""
    if not folder.is_dir():
        raise UsageError(
            "no such folder", where=folder, fix=near_path(folder) or "Give shards, an export, a bank or a run"
        )
    if (folder / INDEX).is_file():
        versions = [f"{entry['version']}.parquet" for entry in read_index(folder)]
        files = [INDEX, *(name for name in versions if (folder / name).is_file())]
        return BANK, files, lambda url: bank_card(folder, url)
    if (folder / "checkpoints").is_dir() or (folder / "model.safetensors").is_file():
        from labelmerge.model.checkpoint import find_checkpoint

        checkpoint = find_checkpoint(folder)
        inside = [
            path for path in sorted(checkpoint.rglob("*")) if path.is_file() and (state or path.name != "state.pt")
        ]
        beside = [] if checkpoint == folder else _of_run(folder)
        files = [path.relative_to(folder).as_posix() for path in (*beside, *inside)]
        return RUN, files, lambda url: run_card(folder, checkpoint, url)
    if (folder / "classes.txt").is_file():
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        return EXPORT, [name for name in files if not _is_hidden(name)], lambda url: export_card(folder, url)
    if not any(True for _ in folder.rglob("*.tar")) and not any(True for _ in folder.rglob(MANIFEST)):
        raise UsageError(
            f"{folder} is neither shards nor an export, a bank or a run", fix="Give what labelmerge wrote; or copy it"
        )
    splits = find_splits([folder])
    files = []
    for split in splits:
        manifest, _ = read_manifest(split)
        names = [MANIFEST, *(shard["name"] for shard in manifest["shards"])]
        names += [CROISSANT] if (split / CROISSANT).is_file() else []
        files += [(split.relative_to(folder) / name).as_posix() for name in names]
    return SHARDS, files, lambda url: shards_card(folder, splits, url)


def _hashes(folder: Path, kind: str, files: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of those of the files of which manifests, a bank's index or a checkpoint's meta.json say it."""
    told: dict[str, str] = {}
    if kind == BANK:
        told = {f"{entry['version']}.parquet": entry["file_sha256"] for entry in read_index(folder)}
    elif kind == RUN:
        from labelmerge.model.checkpoint import find_checkpoint, read_meta

        checkpoint = find_checkpoint(folder)
        hashes = read_meta(checkpoint)["sha256"]
        told = {(checkpoint.relative_to(folder) / name).as_posix(): digest for name, digest in hashes.items()}
    elif kind == SHARDS:
        for split in find_splits([folder]):
            inside = split.relative_to(folder)
            told |= {(inside / each["name"]).as_posix(): each["sha256"] for each in read_manifest(split)[0]["shards"]}
    return {name: told[name] for name in files if name in told}


def _of_run(folder: Path) -> list[Path]:
    """What of a run's own files goes with its checkpoint."""
    results = [path for path in sorted(folder.glob("*.json")) if path.name not in _OF_RUNS]
    pictures = [path for result in results for path in sorted(folder.glob(f"{result.stem}.*")) if path != result]
    return [path for path in (*(folder / name for name in _OF_RUNS), *results, *pictures) if path.is_file()]


def _is_hidden(name: str) -> bool:
    return name == CARD or any(part.startswith(".") for part in name.split("/"))
