"""Runs that were damaged, or that teach nothing: told in one line, and gone on with where that can be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from labelmerge.errors import CheckpointError
from labelmerge.labels import IGNORE
from labelmerge.loading.mixture import Mixture
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

CONFIG = TrainConfig(steps=2, batch_size=3, crop=32, lr=1e-3, scale_min=0.9, scale_max=1.2, log_every=1)


def log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_steps_without_labels_count_for_nothing_and_their_set_is_named(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = Mixture.batch

    def blank(self: Mixture, step: int) -> Any:
        batches = made(self, step)
        for batch in batches:
            for sample, dataset in enumerate(batch.dataset_ids.tolist()):
                if step < 2 or self.datasets[dataset] == "streets":
                    batch.masks[sample] = IGNORE
                    batch.boxes[sample] = batch.boxes[sample][:0]
                    batch.box_classes[sample] = batch.box_classes[sample][:0]
        return batches

    monkeypatch.setattr(Mixture, "batch", blank)
    config = dataclasses.replace(CONFIG, steps=4, log_every=1, workers=0)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    lines = log_lines(result.run)
    assert [line["loss"] is None for line in lines] == [True, True, False, False]
    assert result.untaught == ("streets",) and "no loss ever came from streets" in caplog.text
    whole = dataclasses.replace(config, log_every=4)
    once = log_lines(train([shards], bank, tmp_path / "once", config=whole, device="cpu").run)[0]
    assert once["loss"] == pytest.approx((lines[2]["loss"] + lines[3]["loss"]) / 2)


def test_a_damaged_log_ends_no_run(shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(CONFIG, steps=2, log_every=1, checkpoint_every=1)
    out = train([shards], bank, tmp_path / "run", config=config, device="cpu").run
    shutil.rmtree(out / "checkpoints/step-000002")
    first, second = (out / "log.jsonl").read_bytes().splitlines(keepends=True)
    bad = [b"\xff\xfe}\n", b'{"loss": 1.0}\n', b'{"step": "a", "loss": 1}\n', b"[" * 5000 + b"\n", b"[1]\n"]
    bad += [b'{"step": 1, "loss": 1.0, "parts": {"hd": "x"}}\n', b'{"step": 1, "loss": 1e999}\n', b'{"step": 1e5']
    (out / "log.jsonl").write_bytes(first + b"".join(bad))
    assert train([shards], bank, out, config=config, device="cpu").steps == 2
    assert "7 damaged lines are left out" in caplog.text
    assert [line["step"] for line in log_lines(out)] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda state: state["optimizer"]["param_groups"].pop(),
        lambda state: state["optimizer"]["param_groups"][0].pop("peak_lr"),
        lambda state: state.pop("optimizer"),
        lambda state: state.update(logged=[[1.0]]),
        lambda state: state.update(optimizer=3),
    ],
)
def test_a_state_of_another_run_is_refused(
    change: Callable[[dict[str, Any]], Any], shards: Path, bank: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=2, checkpoint_every=1)
    last = train([shards], bank, tmp_path / "run", config=config, device="cpu").checkpoint
    checkpoint = last.with_name("step-000001")
    shutil.rmtree(last)
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    change(state)
    torch.save(state, checkpoint / "state.pt")
    meta = json.loads((checkpoint / "meta.json").read_text())
    meta["sha256"]["state.pt"] = hashlib.sha256((checkpoint / "state.pt").read_bytes()).hexdigest()
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="the training state is not that of this run"):
        train([shards], bank, tmp_path / "run", config=config, device="cpu")
