"""A real CLIP on disk, small and random: what the plumbing needs; and datasets of a user's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.catalog import Recipe, load_recipe
from labelmerge.labels import LabelKey
from labelmerge.names import PROMPT_TEMPLATE

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}

MakeDataset = Callable[[str, Mapping[str, str]], Recipe]
MakeBank = Callable[..., Bank]


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny-clip.pt``, a state dict of the open_clip model ``tiny-clip``."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-clip.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-clip")
    torch.save(model.state_dict(), folder / "tiny-clip.pt")
    return folder / "tiny-clip.pt"


@pytest.fixture(scope="session")
def clip_spec(clip_weights: Path) -> str:
    return f"open_clip:tiny-clip/{clip_weights}"


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Write a recipe and its descriptions: `make_dataset("streets", {"road": "Where cars drive."})`."""

    def make(name: str, classes: Mapping[str, str]) -> Recipe:
        folder = tmp_path / "recipes"
        folder.mkdir(exist_ok=True)
        rows = [f'{index},"{label}","{text}"' for index, (label, text) in enumerate(classes.items())]
        (folder / f"{name}.csv").write_text("\n".join(["index,name,description", *rows]) + "\n")
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "{name}.csv"\n'
            '[layout]\nimages = "images/*.jpg"\nmasks = "masks/{stem}.png"\n'
        )
        return load_recipe(folder / f"{name}.toml")

    return make


@pytest.fixture
def make_bank() -> MakeBank:
    """A bank from `{(dataset, index): (text, vector)}`; the name of a label is its text up to the colon."""

    def make(rows: Mapping[LabelKey, tuple[str, Sequence[float]]], prompt: str = PROMPT_TEMPLATE) -> Bank:
        keys = sorted(rows)
        vectors = np.array([rows[key][1] for key in keys], dtype=np.float64)
        return Bank(
            encoder="made",
            identity={"spec": "made", "model": "made", "weights_sha256": "0", "activation": "", "tokenizer": ""},
            prompt=prompt,
            keys=keys,
            names=[rows[key][0].partition(":")[0] for key in keys],
            texts=[rows[key][0] for key in keys],
            vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
            tokens=[3] * len(keys),
            truncated=[False] * len(keys),
            probe=np.zeros(2, np.float32),
        )

    return make
