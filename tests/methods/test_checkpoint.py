"""Checkpoints: whole or not there, found again, and damage told in one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from labelmerge.errors import CheckpointError, OutputError
from labelmerge.files import sha256_file
from labelmerge.methods.method import Learner, Vocabulary
from labelmerge.methods.restore import load_trained
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.model.build import build_model
from labelmerge.model.checkpoint import find_checkpoint, load_checkpoint, load_state, read_meta, save_checkpoint


@pytest.fixture(scope="module")
def learner() -> Learner:
    return SSIWLearner(SsiwSettings(temperature=0.05), Vocabulary(8, (), (), ()), build_model("tiny", 8))


def save(run: Path, step: int, learner: Learner, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "tensors": learner.state_dict(),
        "model": {"name": "tiny", "embedding_dim": 8},
        "state": {"optimizer": {"exp_avg": torch.arange(3.0)}, "rng": (3, (1, 2), None), "lr": 1e-3},
        "config": {"train": {"steps": 300, "lr": 6e-5, "shards": ["a", "b"]}},
        "meta": {"columns": ["a deer", "Gräser"]},
    }
    return save_checkpoint(run, step=step, **{**arguments, **changes})


def test_comes_back_as_it_was_saved(tmp_path: Path, learner: Learner) -> None:
    def write_bank(folder: Path) -> None:
        folder.mkdir()
        (folder / "bank.json").write_text("{}")

    folder = save(tmp_path, 300, learner, bank_folder_writer=write_bank)
    assert folder == tmp_path / "checkpoints/step-000300"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "state.pt",
        "config.toml",
        "meta.json",
        "bank",
    }
    loaded = load_checkpoint(tmp_path)
    assert (loaded.step, loaded.folder, loaded.bank_folder) == (300, folder, folder / "bank")
    assert loaded.config == {"train": {"steps": 300, "lr": 6e-5, "shards": ["a", "b"]}}
    assert loaded.meta["columns"] == ["a deer", "Gräser"]
    trained = load_trained(tmp_path)
    assert trained.learner.figures() == learner.figures() and trained.checkpoint.hash == loaded.hash
    assert len(loaded.hash) == 16 and not trained.learner.training
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained.learner.model(image), learner.eval().model(image))
    state = load_state(folder)
    assert state["rng"] == (3, (1, 2), None) and torch.equal(state["optimizer"]["exp_avg"], torch.arange(3.0))


def test_newest_is_the_runs_and_older_ones_go(tmp_path: Path, learner: Learner) -> None:
    for step in (5, 10, 1_000_000):
        save(tmp_path, step, learner)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000010", "step-1000000"]
    assert find_checkpoint(tmp_path).name == "step-1000000"
    assert load_checkpoint(tmp_path / "checkpoints/step-000010").step == 10
    assert load_checkpoint(tmp_path).bank_folder is None


def test_a_checkpoint_half_removed_has_no_checkpoints_name(
    tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5, learner)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", interrupted)
        save(tmp_path, 10, learner, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-000010"]
    save(tmp_path, 15, learner, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000015"]


def interrupted(_: Path) -> None:
    raise KeyboardInterrupt


def test_a_banks_fault_names_the_checkpoint(tmp_path: Path, learner: Learner) -> None:
    def write_bank(folder: Path) -> None:
        raise OutputError("no space left on the device", where=folder / "v0001.parquet", fix="Free some")

    with pytest.raises(OutputError) as caught:
        save(tmp_path, 5, learner, bank_folder_writer=write_bank)
    assert str(caught.value) == f"{tmp_path}/checkpoints/step-000005: no space left on the device. Free some"


def test_the_short_edge_of_training(tmp_path: Path, learner: Learner) -> None:
    save(tmp_path, 5, learner)
    assert load_checkpoint(tmp_path).short_edge == 0
    save(tmp_path, 6, learner, config={"short_edge": 480})
    assert load_checkpoint(tmp_path).short_edge == 480
    save(tmp_path, 7, learner, config={"short_edge": "a"})
    with pytest.raises(CheckpointError, match="config.toml: short_edge is 'a'. Give --short-edge"):
        _ = load_checkpoint(tmp_path).short_edge


def test_same_step_again_replaces_it(tmp_path: Path, learner: Learner) -> None:
    save(tmp_path, 5, learner)
    save(tmp_path, 5, learner, meta={"columns": []})
    assert load_checkpoint(tmp_path).meta["columns"] == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


def test_unfinished_saves_are_neither_found_nor_kept(tmp_path: Path, learner: Learner) -> None:
    killed = tmp_path / "checkpoints/.step-000003.abc"
    killed.mkdir(parents=True)
    (killed / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path)
    save(tmp_path, 5, learner)
    assert not killed.exists()


def test_no_space_left_keeps_what_was_there(tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5, learner)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        save(tmp_path, 10, learner)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


def test_meta_keys_of_the_format_are_not_the_callers(tmp_path: Path, learner: Learner) -> None:
    with pytest.raises(ValueError, match="step"):
        save(tmp_path, 5, learner, meta={"step": 7})
    with pytest.raises(ValueError, match="keep"):
        save(tmp_path, 5, learner, keep=0)


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_meta(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "meta.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, "model.safetensors: the file is damaged"),
    "truncated": (lambda folder: os.truncate(folder / "model.safetensors", 100), "the file is damaged"),
    "missing file": (lambda folder: (folder / "meta.json").unlink(), "the checkpoint lacks meta.json"),
    "meta no JSON": (lambda folder: (folder / "meta.json").write_text("{"), "meta.json: can't be read as JSON"),
    "meta no object": (lambda folder: (folder / "meta.json").write_text("[]"), "format is None"),
    "other format": (change_meta(format="other/9"), "its format is 'other/9'"),
    "no model": (change_meta(model=None), "lacks step, model or sha256"),
    "unknown model": (
        change_meta(model={"name": "vit", "embedding_dim": 8}),
        "can't be used by this version: unknown model 'vit'",
    ),
    "other model": (change_meta(model={"name": "tiny", "embedding_dim": 9}), "do not fit the model 'tiny'"),
    "config": (lambda folder: (folder / "config.toml").write_text("="), "config.toml: can't be read as TOML"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_in_one_line(tmp_path: Path, learner: Learner, kind: str) -> None:
    damage, message = DAMAGE[kind]
    folder = save(tmp_path, 5, learner)
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_trained(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_state(tmp_path: Path, learner: Learner) -> None:
    folder = save(tmp_path, 5, learner)
    (folder / "state.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="state.pt: the file is damaged"):
        load_state(folder)
    digest = sha256_file(folder / "state.pt")
    meta = read_meta(folder)
    change_meta(sha256={**meta["sha256"], "state.pt": digest})(folder)
    with pytest.raises(CheckpointError, match="the training state can't be read"):
        load_state(folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run or checkpoint"):
        find_checkpoint(tmp_path / "none")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/config.toml").touch()
    with pytest.raises(CheckpointError, match="has no checkpoint yet.*`checkpoint_every`.*the same `labelmerge train`"):
        find_checkpoint(tmp_path / "stopped")
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError):
        find_checkpoint(tmp_path / "note.txt")
