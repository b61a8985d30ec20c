"""Shards with a fault put in."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard
from labelmerge.shardset.croissant import write_croissant

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


RECIPE = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"

[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"

[ids]
ignore = [255]
"""


OTHER, KEY = "my_streets-train-000000000", "my_streets-train-000000001"


def faults(folder: Path) -> list[str]:
    return [f"{Path(problem.where).name}: {problem.what}" for problem in verify([folder]).problems]


def rewrite(folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Change the members of the first shard, and its manifest entry to fit: only the samples are wrong then."""
    path = folder / "my_streets-train-000000.tar"
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, data in change(members).items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, BytesIO(data))
    manifest = json.loads((folder / "manifest.json").read_text())
    data = path.read_bytes()
    manifest["shards"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_croissant(folder, manifest)


def png(values: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(np.asarray(values)).save(out, "PNG")
    return out.getvalue()


def with_json(**changes: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        meta = json.loads(members[f"{KEY}.json"])
        texts = {name: json.dumps(value) if isinstance(value, list) else value for name, value in changes.items()}
        return members | {f"{KEY}.json": json.dumps(meta | texts).encode()}

    return change


def with_member(name: str, data: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: dict(sorted((members | {f"{KEY}.{name}": data}).items()))


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: str) -> bytes:
    """One member, whose header may lie."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, size
    for key, value in more.items():
        setattr(header, key, value)
    return header.tobuf(tarfile.GNU_FORMAT)


def add(own: Own, out: Path, name: str, split: str, images: dict[str, bytes], role: str = "train") -> None:
    """Shard a dataset of these images."""
    text = RECIPE.replace('"my_streets"\n', f'"{name}"\nrole = "{role}"\n', 1)
    own.write_recipe(text)
    for kind in ("images", "masks"):
        shutil.rmtree(own.root / kind, ignore_errors=True)
    for stem, data in images.items():
        target = own.root / "images" / split / f"{stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        own.mask(f"masks/{split}/{stem}.png")
    shard(own.recipe, own.root, split, out, samples_per_shard=2)
