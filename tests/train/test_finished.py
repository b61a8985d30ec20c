"""A finished run answers at once, without torch, and only to the very command that made it; failures leave nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labelmerge.errors import ConfigError
from labelmerge.train.config import load_config
from labelmerge.train.finished import finished_run
from labelmerge.train.loop import train

Run = Callable[..., Result]


def test_the_same_command_again_needs_no_torch(shards: Path, bank: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "run"
    words = ["train", "--shards", shards, "--bank", bank, "--out", out, "--steps", 2, "--batch-size", 2]
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    again = "import sys; sys.argv[0] = 'labelmerge'; from labelmerge.cli.main import main\ntry:\n main()\nfinally:\n"
    again += " print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", again, *map(str, words)], capture_output=True, text=True)
    assert "the run is finished: all 2 steps are done" in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stdout.splitlines()[-2].partition(", loss")[0] == "2 steps"


def test_anything_else_is_looked_at(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = load_config("tiny", overrides={"steps": 1, "batch_size": 2})
    made = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    again = finished_run([shards], bank, tmp_path / "run", config, "train")
    assert again is not None and (again.steps, again.checkpoint) == (made.steps, made.checkpoint)
    other = load_config("tiny", overrides={"steps": 1, "batch_size": 2, "seed": 1})
    assert finished_run([shards], bank, tmp_path / "run", other, "train") is None
    assert finished_run([shards], bank, tmp_path / "elsewhere", config, "train") is None
    assert finished_run([shards / "streets"], bank, tmp_path / "run", config, "train") is None
    workers = load_config("tiny", overrides={"steps": 1, "batch_size": 2, "workers": 3})
    assert finished_run([shards], bank, tmp_path / "run", workers, "train") is not None
    (made.checkpoint / "meta.json").write_text("{}")
    assert finished_run([shards], bank, tmp_path / "run", config, "train") is None


def test_a_run_is_not_finished_where_what_it_began_with_is_another_now(
    shards: Path, bank: Path, tmp_path: Path
) -> None:
    first = {"steps": 1, "batch_size": 2}
    one = load_config("tiny", overrides=first)
    train([shards], bank, tmp_path / "one", config=one, device="cpu")
    tuned = load_config("tiny", overrides={**first, "init": str(tmp_path / "one")})
    made = train([shards], bank, tmp_path / "two", config=tuned, device="cpu")
    assert finished_run([shards], bank, tmp_path / "two", tuned, "train") is not None
    shutil.rmtree(tmp_path / "one")
    assert train([shards], bank, tmp_path / "two", config=tuned, device="cpu").checkpoint == made.checkpoint
    train([shards], bank, tmp_path / "one", config=load_config("tiny", overrides={**first, "seed": 1}), device="cpu")
    assert finished_run([shards], bank, tmp_path / "two", tuned, "train") is None
    with pytest.raises(ConfigError, match=r"other settings or data: the weights of .*/one was .*… and is now"):
        train([shards], bank, tmp_path / "two", config=tuned, device="cpu")


def test_weights_that_cannot_be_had_leave_nothing(shards: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = {"steps": 1, "batch_size": 2, "model": "segformer-b0", "pretrained": str(tmp_path / "none.pth")}
    with pytest.raises(ConfigError):
        train([shards], bank, out, config=load_config("tiny", overrides=overrides), device="cpu")
    assert not out.exists()
