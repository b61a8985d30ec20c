"""What is damaged, how, and which commands then meet it."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import mutations
from .mutations import BYTES, Mutation
from .world import STEPS, TRAIN

Words = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """An artefact under attack.

    Attributes:
        files: patterns in the world; one match is damaged.
        how: what may happen to it.
        commands: what then meets it, with {world} and {out} for the folders.
        sealed: any change must be refused, for there is a hash of the file.
        seal: what makes the hashes right again, so that what reads the content meets it.
        member: of a sample; that is damaged in place of the shard.
    """

    files: Words
    how: tuple[Mutation, ...]
    commands: tuple[Words, ...]
    sealed: bool = False
    seal: Callable[[Path], None] | None = None
    member: str = ""

    @property
    def needs_torch(self) -> bool:
        """Whether a run, or what trains or predicts, is in play."""
        return any(word.startswith(("{world}/run", "train", "relabel")) for words in self.commands for word in words)


def _train(*more: str) -> Words:
    return ("train", "--shards", "{world}/shards", "--bank", "{world}/bank", "--out", *more, *TRAIN, *STEPS)


_SHARD = ("shard", "{world}/mine.toml", "--root", "{world}/data", "--split", "train", "--out", "{out}/shards")
_VERIFY = ("verify", "{world}/shards", "--json")
_STATS = ("stats", "--classes", "{world}/shards")
_EXPORT = ("export", "{world}/shards/mine/train", "--format", "index-png", "--out", "{out}/e")
_MERGE = ("merge", "--bank", "{world}/bank", "--out", "{out}/merge", "--json")
_PREDICT = ("predict", "{world}/data/images/val/0.jpg", "--checkpoint", "{world}/run", "--out", "{out}/p", "--json")
_LABELS = ("--labels", "road, sky", "--device", "cpu")
_EVAL = (
    "eval",
    "--checkpoint",
    "{world}/run",
    "--shards",
    "{world}/shards",
    "--out",
    "{out}/r.json",
    "--device",
    "cpu",
)
_REPORT = ("report", "{world}/run", "--out", "{out}/report", "--json")
_RELABEL = ("relabel", "{world}/shards/mine/train", "--taxonomy", "{world}/merge/taxonomy.csv", "--out", "{out}/r")
_TABLE = ("--taxonomy", "{world}/merge/taxonomy.csv")
_SETTINGS = ("--config", "{world}/settings.toml")
_GO_ON = _train("{world}/run")


def damage(path: Path, how: Mutation, rng: random.Random, member: str) -> bool:
    """Change a file, or a member of a sample in a shard; returns whether it is another now."""
    before = path.read_bytes()
    if not member:
        after = how(before, rng)
    else:
        with tarfile.open(path) as tar:
            files = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
        name = rng.choice([name for name in files if name.partition(".")[2] == member])
        files[name] = how(files[name], rng)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in files.items():
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
        after = out.getvalue()
    path.write_bytes(after)
    return after != before


def _json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _seal_shard(path: Path) -> None:
    data = path.read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _json(
        path.parent / "manifest.json",
        lambda it: [each.update(entry) for each in it["shards"] if each["name"] == path.name],
    )
    (path.parent / "croissant.json").unlink(missing_ok=True)


def _seal_bank(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _json(path.parent / "bank.json", lambda it: it["versions"][-1].update(file_sha256=digest))


def _seal_checkpoint(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _json(path.parent / "meta.json", lambda it: it["sha256"].update({path.name: digest}))


_CHECKPOINT = "run/checkpoints/step-000001"
TARGETS: dict[str, Target] = {
    "recipe": Target(("mine.toml",), (*BYTES, *[mutations.toml_value] * 8), (("ls", "{world}/mine.toml"), _SHARD)),
    "classes": Target(
        ("mine.csv",), (*BYTES, *[mutations.csv_value] * 8), (_SHARD, ("describe", "{world}/mine.toml", "--lint"))
    ),
    "pictures": Target(
        ("data/images/train/*.jpg", "data/labels/train/*.png"), BYTES, ((*_SHARD, "--max-skip-ratio", "1"),)
    ),
    "manifest": Target(
        ("shards/mine/train/manifest.json",), (*BYTES, *[mutations.json_value] * 8), (_VERIFY, _STATS, _EXPORT)
    ),
    "metadata": Target(("shards/mine/train/croissant.json",), (*BYTES, *[mutations.json_value] * 4), (_VERIFY,)),
    "tar": Target(("shards/mine/train/*.tar",), (*BYTES, *[mutations.tar_header] * 6), (_VERIFY,), sealed=True),
    "tar, sealed": Target(
        ("shards/mine/train/*.tar",), (*BYTES, *[mutations.tar_header] * 6), (_VERIFY, _EXPORT), seal=_seal_shard
    ),
    "sample": Target(
        ("shards/mine/train/*.tar",), (*BYTES, *[mutations.json_value] * 9), (_VERIFY, _train("{out}/run")),
        seal=_seal_shard, member="json",
    ),
    "image": Target(
        ("shards/mine/train/*.tar",), BYTES, (_VERIFY, _train("{out}/run"), _EXPORT), seal=_seal_shard, member="jpg"
    ),
    "mask": Target(
        ("shards/mine/*/*.tar",), BYTES, (_VERIFY, _train("{out}/run"), _EVAL), seal=_seal_shard, member="mask.png"
    ),
    "bank": Target(("bank/*.parquet",), BYTES, (("bank", "show", "{world}/bank"),), sealed=True),
    "bank, sealed": Target(("bank/*.parquet",), BYTES, (("bank", "show", "{world}/bank"), _MERGE), seal=_seal_bank),
    "bank list": Target(
        ("bank/bank.json",), (*BYTES, *[mutations.json_value] * 8),
        (("bank", "show", "{world}/bank"), ("bank", "list", "{world}/bank"), _MERGE),
    ),
    "taxonomy": Target(
        ("merge/taxonomy.csv",), (*BYTES, *[mutations.csv_value] * 8), (_RELABEL, (*_MERGE, *_TABLE))
    ),
    "weights": Target((f"{_CHECKPOINT}/model.safetensors",), BYTES, (_GO_ON,), sealed=True),
    "weights, sealed": Target(
        ("run/checkpoints/step-000002/model.safetensors",), BYTES, ((*_PREDICT, *_LABELS), _EVAL), seal=_seal_checkpoint
    ),
    "state": Target((f"{_CHECKPOINT}/state.pt",), BYTES, (_GO_ON,), seal=_seal_checkpoint),
    "meta": Target(
        ("run/checkpoints/step-000002/meta.json",), (*BYTES, *[mutations.json_value] * 8),
        ((*_PREDICT, *_LABELS), _EVAL, _REPORT),
    ),
    "checkpoint's settings": Target(
        ("run/checkpoints/step-000002/config.toml",), (*BYTES, *[mutations.toml_value] * 8), ((*_PREDICT, *_LABELS),)
    ),
    "run's settings": Target(("run/config.toml",), (*BYTES, *[mutations.toml_value] * 8), (_GO_ON, _REPORT)),
    "log": Target(("run/log.jsonl",), (*BYTES, *[mutations.json_lines] * 8), (_GO_ON, _REPORT)),
    "results": Target(("run/results.json",), (*BYTES, *[mutations.json_value] * 8), (_REPORT,)),
    "labels": Target(
        ("labels.csv",), (*BYTES, *[mutations.csv_value] * 8),
        ((*_PREDICT, "--labels-file", "{world}/labels.csv", "--device", "cpu"),),
    ),
    "photo": Target(("data/images/val/0.jpg",), BYTES, ((*_PREDICT, *_LABELS),)),
    "settings": Target(
        ("settings.toml",), (*BYTES, *[mutations.toml_value] * 8), (_train("{out}/run", *_SETTINGS),)
    ),
}  # fmt: skip
