"""LMSeg in two processes, connected as torchrun connects them, against one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from labelmerge.evaluate.evaluate import evaluate
from labelmerge.model.views import Views
from labelmerge.train.loop import train

from ..loading.toy_shards import toy_bank
from ..train.test_train_ranks import two_processes
from .test_lmseg import BOXES, config
from .things import ToyThings

_TRAIN_AND_MEASURE = """
import json, os, sys
from pathlib import Path
import torch
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.model.views import Views
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

torch.set_num_threads(1)
shards, bank, out, config, trained, results = sys.argv[1:]
train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(json.loads(config)), device="cpu")
os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
evaluate(Path(trained), [Path(shards) / "crowd"], None, Path(results), views=Views(short_edge=0), device="cpu",
         tasks=["panoptic", "instances"])
"""


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_two_processes_are_one(tmp_path: Path) -> None:
    toys = [ToyThings(count=5), BOXES]
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    settings = config(steps=3, optimizer="sgd", lr=1e-3, segment_score=0.0)
    one = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "one", config=settings, device="cpu")
    views = Views(short_edge=0)
    evaluate(one.run, [tmp_path / "shards/crowd"], None, tmp_path / "one.json", views=views, device="cpu",
             tasks=["panoptic", "instances"])  # fmt: skip
    words = [tmp_path / "shards", tmp_path / "bank", tmp_path / "two", json.dumps(settings.to_dict()), one.run]
    for process in two_processes(_TRAIN_AND_MEASURE, *words, tmp_path / "two.json"):
        assert process.returncode == 0, process.stderr
    weights, others = (
        safetensors.torch.load_file(tmp_path / run / "checkpoints/step-000003/model.safetensors")
        for run in ("one", "two")
    )
    for key, value in weights.items():
        assert torch.allclose(value.float(), others[key].float(), atol=2e-5), key
    logs = [json.loads((tmp_path / run / "log.jsonl").read_text().splitlines()[-1]) for run in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-4)
    sets = [json.loads((tmp_path / f"{name}.json").read_text())["sets"] for name in ("one", "two")]
    assert sets[0] == sets[1] and sets[0][0]["panoptic"]["all"]["classes"] > 0
