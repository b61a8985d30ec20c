"""A small trained-looking run, its bank, and shards whose masks are what the model itself sees, in part."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.model.build import build_model
from labelmerge.model.checkpoint import save_checkpoint
from labelmerge.names import PROMPT_TEMPLATE, sentence

DIM = 8


def png(pixels: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def make_bank(
    labels: Sequence[tuple[str, int, str, str]], *, weights: str = "0" * 64, dim: int = DIM, prompt: str = ""
) -> Bank:
    """A bank of random vectors, one for each text, from (dataset, index, name, description)."""
    labels = sorted(labels)
    texts = [sentence(name, description) for *_, name, description in labels]
    vectors = []
    for text in texts:
        vector = np.random.default_rng(list(text.encode())).normal(size=dim)
        vectors.append(vector / np.linalg.norm(vector))
    return Bank(
        encoder="offline",
        identity={"spec": "offline", "model": "m", "weights_sha256": weights, "activation": "a", "tokenizer": "t"},
        prompt=prompt or PROMPT_TEMPLATE,
        keys=[(dataset, index) for dataset, index, *_ in labels],
        names=[name for *_, name, _ in labels],
        texts=texts,
        vectors=np.array(vectors, dtype=np.float32).reshape(len(labels), dim),
        tokens=[1] * len(labels),
        truncated=[False] * len(labels),
    )


def make_run(
    folder: Path,
    bank: Bank | None,
    *,
    dim: int = DIM,
    config: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    taxonomy: str | None = None,
) -> Path:
    """A run with one checkpoint of an untrained tiny model."""
    torch.manual_seed(0)
    learner = SSIWLearner(SsiwSettings(temperature=0.1), Vocabulary(dim, (), (), ()), build_model("tiny", dim))
    save_checkpoint(
        folder,
        step=7,
        tensors=learner.state_dict(),
        model={"name": "tiny", "embedding_dim": dim},
        state={},
        config=config or {},
        meta=meta or {},
        bank_folder_writer=bank.save_copy if bank else None,
        taxonomy=taxonomy,
    )
    return folder


def make_split(
    folder: Path,
    space: LabelSpace,
    samples: Sequence[tuple[bytes, bytes | None]],
    *,
    annotation_type: str = "mask",
    labelled: bool = True,
) -> Path:
    """A split folder of one shard, from the bytes of each sample's image and mask."""
    dataset, split = folder.parts[-2:]
    folder.mkdir(parents=True)
    tar_path = folder / f"{dataset}-{split}-000000.tar"
    with tarfile.open(tar_path, "w") as tar:
        for number, (image, mask) in enumerate(samples):
            meta = {"label_space": space.hash, "boxes": "[]"}
            members = {"png": image, "json": json.dumps(meta).encode()} | ({"mask.png": mask} if mask else {})
            for name, data in members.items():
                info = tarfile.TarInfo(f"{dataset}-{split}-{number:09d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    recipe = f'name = "{dataset}"'
    kinds = {"png", "json", *(["mask.png"] if any(mask for _, mask in samples) else [])}
    manifest = {
        "format": "labelmerge-shards/2",
        "labelmerge": "0",
        "variant": None,
        "options": {},
        "box_teacher": None,
        "candidates": "",
        "members": sorted(kinds),
        "counts": {"found": len(samples), "written": len(samples), "skipped": 0},
        "skipped": [],
        "notes": {},
        "ignored_pixels": 0,
        "sizes": {"pixels": 0, "min": [0, 0], "max": [0, 0]},
        "reproduce": "",
        "dataset": dataset,
        "split": split,
        "annotation_type": annotation_type,
        "recipe": {"name": dataset, "sha256": hashlib.sha256(recipe.encode()).hexdigest(), "text": recipe},
        "label_space": space.to_json(),
        "class_pixels": {"0": 1} if labelled else {},
        "class_boxes": {},
        "shards": [
            {
                "name": tar_path.name,
                "samples": len(samples),
                "bytes": tar_path.stat().st_size,
                "sha256": sha256_file(tar_path),
            }
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@dataclass(frozen=True)
class Tools:
    """The makers above, for test files, which can't import a conftest."""

    png: Callable[..., bytes] = png
    bank: Callable[..., Bank] = make_bank
    run: Callable[..., Path] = make_run
    split: Callable[..., Path] = make_split
    dim: int = DIM


@pytest.fixture(autouse=True)
def small(one_thread: None) -> None:
    """All that is computed here."""


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()
