from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..loading.toy_shards import Toy

QUICK = ("--steps", 2, "--batch-size", 3, "--crop", 32, "--device", "cpu", "--set", "log_every=1")


def test_train_makes_a_run_says_where_and_goes_on(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ("train", "--shards", shards / "streets", shards / "parts", shards / "things", "--bank", bank, "--out", out)
    result = run(*args, *QUICK)
    assert result.exit_code == 0, result.output
    assert "steps=2" in result.stdout and "lr=0.002" in result.stdout  # the settings come first
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("2 steps, loss ") and str(out / "checkpoints" / "step-000002") in last
    assert f"Next: labelmerge eval --checkpoint {out}" in last
    assert "%" not in result.stderr, "bars are for terminals"

    again = run(*args, *QUICK)
    assert again.exit_code == 0 and "the run is finished" in again.stderr
    other = run(*args, *QUICK, "--lr", 1)
    assert other.exit_code == 1 and "lr was 0.002 and is now 1.0" in other.stderr


def test_json_is_all_that_standard_output_holds(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    args = ("train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", "--json")
    result = run(*args, *QUICK)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["steps"] == 2 and Path(data["checkpoint"]).is_dir()


def test_quiet_leaves_the_result_alone(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    words = ["train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", "--steps", 1, "--batch-size", 2]
    result = run(*words, "--quiet")
    assert result.exit_code == 0 and result.stderr == "" and len(result.stdout.splitlines()) == 1, result.output


def test_a_runs_own_configuration_runs_it_again(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    args = ("train", "--shards", shards, "--bank", bank, "--device", "cpu")
    assert run(*args, "--out", tmp_path / "a", *QUICK, "--negatives", "own").exit_code == 0
    assert run(*args, "--out", tmp_path / "b", "--config", tmp_path / "a" / "config.toml").exit_code == 0
    weights = "checkpoints/step-000002/model.safetensors"
    assert (tmp_path / "a" / weights).read_bytes() == (tmp_path / "b" / weights).read_bytes()


def test_mistakes_are_one_line(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    def fault(*args: object) -> tuple[int, str]:
        result = run("train", "--bank", bank, "--out", tmp_path / "run", *args)
        assert "Traceback" not in result.output
        return result.exit_code, result.stderr.strip().splitlines()[-1]

    assert fault("--shards", shards, "--preset", "tinny") == (2, "Error: unknown preset 'tinny'. Did you mean tiny?")
    code, line = fault("--shards", shards, "--set", "stepz=3")
    assert code == 1 and "unknown setting 'stepz'" in line and "steps" in line
    assert fault("--shards", shards, "--set", "steps")[0] == 2
    code, line = fault("--shards", tmp_path / "nowhere")
    assert code == 1 and "nowhere: no such folder" in line
    Toy("sea", ("water", "ship")).write(tmp_path / "more")
    code, line = fault("--shards", tmp_path / "more", *QUICK)
    assert code == 1 and "has no labels of 'sea'" in line and "labelmerge embed sea" in line
    assert not (tmp_path / "run").exists()


def test_mistakes_name_shards_as_they_were_given(
    run: Any, shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shards / "streets/train", tmp_path / "copy/streets/train")
    (tmp_path / "link").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    words = ("--bank", bank, "--out", "run", *QUICK)
    twice = run("train", "--shards", "link/streets", "copy", *words)
    assert "Error: link/streets/train: is streets's train split, and so is copy/streets/train." in twice.stderr
    tar = min((tmp_path / "copy/streets/train").glob("*.tar"))
    tar.unlink()
    assert (
        f"Error: copy/streets/train/{tar.name}: the manifest lists" in run("train", "--shards", "copy", *words).stderr
    )


def test_a_folder_of_other_things_is_told(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    """Once: afterwards it is a bank, or a run."""
    wanted = f"{tmp_path / 'out'}: is to hold WHAT, and holds other things (notes.txt, photo.jpg)"
    recipe = tmp_path / "mine.txt"
    recipe.write_text("road\ncar\n")
    for what, words in (
        ("a bank", ("embed", recipe, "--encoder", "offline")),
        ("a run", ("train", "--shards", shards / "streets", "--bank", bank, *QUICK)),
    ):
        out = tmp_path / "out"
        out.mkdir()
        for name in ("photo.jpg", "notes.txt", ".hidden"):
            (out / name).touch()
        first, again = (run(*words, "--out", out) for _ in range(2))
        assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
        assert wanted.replace("WHAT", what) in first.stderr and "is to hold" not in again.stderr
        shutil.rmtree(out)
        assert "is to hold" not in run(*words, "--out", out).stderr  # a new one
        shutil.rmtree(out)


@pytest.mark.parametrize("text", ["lr = 0.5\n", "lr ="])
def test_settings_that_a_user_wrote_are_not_replaced(
    run: Any, shards: Path, bank: Path, tmp_path: Path, text: str
) -> None:
    mine = tmp_path / "run/config.toml"
    mine.parent.mkdir()
    mine.write_text(text)
    refused = run("train", "--shards", shards / "streets", "--bank", bank, "--out", mine.parent, *QUICK)
    assert refused.exit_code == 1 and f"Error: {mine}: no run wrote this" in refused.stderr
    assert mine.read_text() == text


def test_ctrl_c_is_one_line(
    run: Any, shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, step: int) -> None:
        raise KeyboardInterrupt

    def interrupt_at_once(run: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("labelmerge.loading.mixture.Mixture.batch", interrupt)
        result = run("train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", *QUICK)
    assert result.exit_code == 1
    last = f"Error: {tmp_path / 'run'}: interrupted. The same command starts over: no checkpoint was due yet"
    assert result.stderr.strip().splitlines()[-1] == last
    assert run("train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", *QUICK).exit_code == 0
    (tmp_path / "run/finished.json").unlink()  # with it, the answer comes before anything can be interrupted
    monkeypatch.setattr("labelmerge.train.loop.newest_checkpoint", interrupt_at_once)
    result = run("train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", *QUICK)
    assert result.stderr.strip().endswith("interrupted. The same command resumes from the newest checkpoint")


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from labelmerge.cli.main import cli; cli(['train', '--help'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--shards DIR" in result.stdout and "Example:" in result.stdout


def test_losses_and_what_a_run_begins_with_are_options(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    args = ("train", "--bank", bank, *QUICK)
    first = run(
        *args, "--shards", shards, "--out", tmp_path / "a", "--losses", "hd,wd", "--ema", 0.9, "--channels-last"
    )
    assert first.exit_code == 0 and "parts is left out" in first.stderr
    meta = json.loads((tmp_path / "a" / "checkpoints" / "step-000002" / "meta.json").read_text())
    assert set(meta["manifests"]) == {"streets/train", "things/train"} and meta["ema"] == 0.9
    tuned = run(*args, "--shards", shards / "streets", "--out", tmp_path / "b", "--init", tmp_path / "a")
    assert tuned.exit_code == 0 and "starting from the weights of" in tuned.stderr

    wrong = run(*args, "--shards", shards, "--out", tmp_path / "c", "--losses", "hd,xd")
    assert wrong.exit_code == 1 and "losses must be some of hd, ld, wd, not ['hd', 'xd']" in wrong.stderr
    twice = run(*args, "--shards", shards, "--out", tmp_path / "c", "--losses", "hd,hd")
    assert twice.exit_code == 1 and "losses must be some of" in twice.stderr


def test_shards_whose_classes_are_others_than_the_banks_are_refused(run: Any, bank: Path, tmp_path: Path) -> None:
    renamed = Toy("streets", ("road", "sky", "lorry")).write(tmp_path / "renamed")
    words = ["train", "--shards", renamed, "--bank", bank, "--steps", 1, "--device", "cpu"]
    result = run(*words, "--out", tmp_path / "run")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "1 class of streets differently: 2 is 'lorry' in the data, 'car' in the bank" in result.stderr
