"""Every method on a GPU: the first steps lose what they lose on a CPU, and what was trained there is measured there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from labelmerge.evaluate.evaluate import Measure, evaluate
from labelmerge.model.views import Views
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank
from .things import ToyThings

TOYS = {
    "crowd": ToyThings(count=5),
    "boxes": Toy("things", ("cup", "car"), "box", count=5, colours=(4, 2)),
    "streets": Toy("streets", ("road", "sky", "car"), depth=True),
    "parts": Toy("parts", ("tree", "road"), "noisy_mask", count=5, colours=(3, 0), depth=True),
}
METHODS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "ssiw": (("streets", "parts", "boxes"), {"unlabelled": "entropy", "labelled": {"streets": 2}}),
    "lmseg": (
        ("crowd", "boxes", "streets"),
        {"queries": 8, "query_dim": 32, "decoder_layers": 2, "attention_heads": 2, "segment_score": 0.0},
    ),
    "usss": (
        ("streets", "parts"),
        {"label_embeddings": "random", "entropy_dim": 8, "decoder_features": 12, "labelled": {"streets": 2}},
    ),
    "mdp": (("streets", "parts"), {}),
    "depth": (("streets", "parts"), {"depth_features": 16}),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: methods are not trained on one")
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_the_gpu_as_on_a_cpu(method: str, tmp_path: Path) -> None:
    same_on("cuda", method, tmp_path)


def same_on(device: str, method: str, out: Path) -> None:
    names, settings = METHODS[method]
    toys = [TOYS[name] for name in names]
    for toy in toys:
        toy.write(out / "shards")
    toy_bank(toys).save(out / "bank")
    common = {"steps": 2, "batch_size": 4, "crop": 32, "lr": 1e-4, "warmup": 0, "log_every": 1, "bf16": False}
    config = TrainConfig.from_dict({"method": method, **common, **settings})
    losses: list[list[float]] = []
    for where in ("cpu", device):
        run = train([out / "shards"], out / "bank", out / f"on-{len(losses)}", config=config, device=where).run
        losses.append([json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()])
    # Convolutions on a GPU have the precision of TF32.
    assert losses[1] == pytest.approx(losses[0], rel=2e-2) and len(losses[0]) == 2
    views = Views(short_edge=0)
    tasks: tuple[Measure, ...] = ("panoptic",) if method == "lmseg" else ()
    measured, out_file = out / "shards" / toys[0].name, out / "results.json"
    results = evaluate(run, [measured], None, out_file, views=views, device=device, tasks=tasks)
    assert len(results.sets) == 1
