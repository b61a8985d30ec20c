"""Shards made by hand, after docs/architecture.md alone: the loader is tested against the format, not the writer."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelSpace

Members = dict[str, bytes]

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200), (200, 30, 200))


def png(array: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


@dataclass
class Toy:
    """A dataset of images with a left and a right half, each in its class's colour and a little noise.

    With `segments`, the halves are segments 7 and 300, of which the second is a crowd. With `depth`, each class has a
    depth, and lower rows are nearer; the uppermost row's isn't known. `annotated`: the classes that samples list, by
    their numbers; the others list none.
    """

    name: str
    names: tuple[str, ...]
    kind: str = "mask"
    count: int = 6
    size: tuple[int, int] = (40, 48)
    colours: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    embedding_dim: int | None = None
    segments: bool = False
    depth: bool = False
    corrupt: tuple[int, ...] = ()
    per_shard: int = 4
    split: str = "train"
    seed: int = 0
    annotated: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> LabelSpace:
        return LabelSpace.of(self.name, self.names)

    def sample(self, number: int) -> tuple[str, Members]:
        rng = np.random.default_rng([self.seed, number])
        key = f"{self.name}-{self.split}-{number:09d}"
        height, width = self.size
        left, right = rng.choice(len(self.names), 2, replace=False)
        mask = np.full(self.size, left, dtype=self.space.dtype)
        middle = int(rng.integers(width // 4, 3 * width // 4))
        mask[:, middle:] = right
        image = np.array([COLOURS[colour] for colour in self.colours])[mask] + rng.integers(-20, 20, (*self.size, 3))
        halves = mask.astype(np.int64)
        if self.kind == "noisy_mask":
            mask[: height // 4] = self.space.ignore_index
        boxes = [
            {"bbox": [0.0, 0.0, float(middle), float(height)], "class_index": int(left), "iscrowd": False},
            {"bbox": [float(middle), 0.0, float(width), float(height)], "class_index": int(right), "iscrowd": False},
            {"bbox": [0.0, 0.0, float(width), float(height)], "class_index": int(right), "iscrowd": True},
        ]
        meta = {
            "key": key,
            "dataset": self.name,
            "split": self.split,
            "annotation_type": self.kind,
            "label_space": self.space.hash,
            "height": height,
            "width": width,
            "boxes": json.dumps(
                [{**box, "group_of": False, "area": 1.0} for box in boxes] if self.kind == "box" else []
            ),
        }
        if number in self.annotated:
            meta["annotated"] = json.dumps(self.annotated[number])
        if self.segments:
            segments = [{"id": 7, "class_index": int(left), "iscrowd": False}]
            segments += [{"id": 300, "class_index": int(right), "iscrowd": True}]
            meta["segments"] = json.dumps(segments)
        members = {"json": json.dumps(meta).encode(), "png": png(image.clip(0, 255).astype(np.uint8))}
        if self.kind in ("mask", "noisy_mask"):
            members["mask.png"] = png(mask)
        if self.segments:
            ids = np.where(np.arange(width) < middle, 7, 300).astype(np.uint16)
            members["instances.png"] = png(np.broadcast_to(ids, self.size).copy())
        if self.depth:
            depth = 1000 + 700 * halves + 10 * np.arange(height, 0, -1)[:, None]
            depth[0] = 0
            members["depth.png"] = png(depth.astype(np.uint16))
        if self.embedding_dim:
            out = io.BytesIO()
            np.save(out, rng.standard_normal((3, self.embedding_dim)).astype(np.float16))
            members["box_embeddings.npy"] = out.getvalue()
        if number in self.corrupt:
            members["png"] = members["png"][:60] + bytes(40)
        return key, members

    def write(self, out: Path) -> Path:
        """`<out>/<name>/<split>`, with its manifest."""
        return write_split(out / self.name / self.split, self, [self.sample(number) for number in range(self.count)])


def write_split(folder: Path, toy: Toy, samples: Sequence[tuple[str, Members]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, len(samples), toy.per_shard):
        path = folder / f"{toy.name}-{toy.split}-{first // toy.per_shard:06d}.tar"
        some = samples[first : first + toy.per_shard]
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, members in some:
                for name, data in sorted(members.items()):
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        shards.append({"name": path.name, "samples": len(some), "bytes": len(data), "sha256": digest})
    height, width = toy.size
    counts = {str(index): 100 for index in range(len(toy.names))}
    kinds = sorted({name for _, members in samples for name in members})
    manifest = {
        "format": "labelmerge-shards/2",
        "labelmerge": "0",
        "variant": None,
        "options": {},
        "box_teacher": None,
        "candidates": "",
        "members": kinds,
        "skipped": [],
        "notes": {"images_with_their_own_annotated_classes": len(toy.annotated)} if toy.annotated else {},
        "ignored_pixels": 0,
        "sizes": {"pixels": 0, "min": [0, 0], "max": [0, 0]},
        "reproduce": "",
        "dataset": toy.name,
        "split": toy.split,
        "annotation_type": toy.kind,
        "recipe": {"name": toy.name, "sha256": hashlib.sha256(b"").hexdigest(), "text": ""},
        "label_space": toy.space.to_json(),
        "shards": shards,
        "counts": {"found": len(samples), "written": len(samples), "skipped": 0},
        "class_pixels": counts if toy.kind in ("mask", "noisy_mask") else {},
        "class_boxes": counts if toy.kind == "box" else {},
        **({"depth": {"unit": "mm", "known_pixels": len(samples) * (height - 1) * width}} if toy.depth else {}),
        **toy.changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def toy_bank(toys: Sequence[Toy], dim: int = 16, *, encoder: str = "toy") -> Bank:
    """A bank for these datasets: equal names have equal texts, and texts random unit vectors."""
    rows = sorted((toy.name, index, name) for toy in toys for index, name in enumerate(toy.names))
    vectors = []
    for _, _, name in rows:
        vector = np.random.default_rng(list(name.encode())).standard_normal(dim)
        vectors.append(vector / np.linalg.norm(vector))
    return Bank(
        encoder=encoder,
        identity={"model": encoder, "weights_sha256": None, "activation": None, "tokenizer": None},
        prompt="{name}",
        keys=[(dataset, index) for dataset, index, _ in rows],
        names=[name for _, _, name in rows],
        texts=[name for _, _, name in rows],
        vectors=np.array(vectors, dtype=np.float32),
        tokens=[1] * len(rows),
        truncated=[False] * len(rows),
    )
