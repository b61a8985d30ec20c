"""Checkpoints that say what no checkpoint can, with right hashes: refused in one line, before memory is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from labelmerge.errors import CheckpointError, SampleError
from labelmerge.files import sha256_file
from labelmerge.methods.inference import segment
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.restore import load_trained
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.model.build import build_model
from labelmerge.model.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    learner = SSIWLearner(SsiwSettings(), Vocabulary(8, (), (), ()), build_model("tiny", 8))
    model = {"name": "tiny", "embedding_dim": 8}
    return save_checkpoint(
        tmp_path,
        step=1,
        tensors=learner.state_dict(),
        model=model,
        state={},
        config={},
        meta=learner.vocabulary.to_meta(),
    )


def rewrite_meta(folder: Path, **changes: Any) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers(value: float, checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = next(name for name in tensors if tensors[name].numel() > 1)
    tensors[name].view(-1)[-1] = value
    safetensors.torch.save_file(tensors, path)
    rewrite_meta(checkpoint, sha256={"model.safetensors": sha256_file(path), "state.pt": ""})
    with pytest.raises(CheckpointError, match=f"the weights '{name}' hold values that are not finite"):
        load_trained(checkpoint)


@pytest.mark.parametrize(
    "changes",
    [
        *({"model": {"name": "tiny", "embedding_dim": dim}} for dim in (-1, 0, 10**9, True, 8.0, "8")),
        *({"label_dim": dim} for dim in (-1, 10**9)),
        *({"step": step} for step in (-1, "1", None, True)),
        {"model": {"name": "\x1b[2J", "embedding_dim": 8}},
        {"model": []},
        {"sha256": {"model.safetensors": 3}},
        {"columns": "abc"},
        {"columns": [1]},
        {"column_labels": [["a:b"]]},
        {"column_labels": [3]},
        {"columns": ["a", "b"], "column_labels": [["mine:0"], []]},
        {"columns": ["a", "b"], "column_labels": [["mine:0"]]},
        {"datasets": {"a": 1}},
        {"manifests": 3},
    ],
)
def test_meta_that_makes_no_sense(changes: dict[str, Any], checkpoint: Path) -> None:
    rewrite_meta(checkpoint, **changes)
    with pytest.raises(CheckpointError) as caught:
        load_trained(checkpoint)
    assert str(checkpoint) in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["meta.json", "config.toml"])
@pytest.mark.parametrize(
    "text", ["[" * 5000 + "]" * 5000, "\xff", 'a = "' + "x" * 9, '{"a": 1e999}', "a = inf", '"\\ud800"']
)
def test_files_that_break_parsers(name: str, text: str, checkpoint: Path) -> None:
    deep = f"a = {text}" if text.startswith("[") and name.endswith("toml") else text
    (checkpoint / name).write_bytes(deep.encode("latin-1"))
    with pytest.raises(CheckpointError):
        load_trained(checkpoint)


class _Broken:
    """A network whose answer is a number almost everywhere."""

    stride = 4

    def __init__(self, value: float) -> None:
        self.value = value

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        out = torch.ones(len(images), 3, -(-images.shape[2] // 4), -(-images.shape[3] // 4))
        out[:, :, -1, -1] = self.value
        return out


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_answer_that_is_no_number_is_no_label(value: float) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    assert segment(_Broken(1.0), image, np.eye(3), tau=0.1).shape == (16, 24)
    with pytest.raises(SampleError, match="not a number everywhere"):
        segment(_Broken(value), image, np.eye(3), tau=0.1)
