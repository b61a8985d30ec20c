"""What a command line is guessed to do: near names, --quiet anywhere, settings from a file, completion, progress."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from labelmerge.bank.bank import Bank

OPTIONS = importlib.import_module("labelmerge.cli.options")
CLI = importlib.import_module("labelmerge.cli.main").cli
COMMANDS = importlib.import_module("labelmerge.cli.main").COMMANDS

Run = Callable[..., Result]


def test_a_wrong_command_is_answered_by_the_near_one(run: Run) -> None:
    assert "Did you mean shard?" in run("shrad").stderr
    assert "Did you mean diff?" in run("bank", "dif").stderr


def test_a_folder_that_is_gone_is_said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("os.getcwd", gone)
    done = run("ls")
    assert done.exit_code == 2 and "the folder that you are in has been removed" in done.stderr


def test_folders_and_files_are_told_apart(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("name\n")
    assert "is a file, and must be a folder" in run("embed", "camvid", "--out", tmp_path / "file.csv").stderr
    assert "is a folder, and must be a file" in run("merge", "--out", tmp_path, "--taxonomy", tmp_path).stderr
    assert "there is no folder" in run("verify", tmp_path / "nowhere").stderr


def test_a_mistyped_path_is_answered_by_the_near_one(run: Run, here: Path) -> None:
    for name in ("shards-out", "my-bank", "run"):
        (here / "below" / name).mkdir()
    for words in ("merge --bank my-bank --shards shard-out", "verify shard-out", "export shard-out --format yolo"):
        said = run(*words.split(), *(() if words.startswith("verify") else ("--out", "new"))).stderr
        assert ("my-bank: no bank here" if "merge" in words else "Did you mean shards-out?") in said
    assert "mybank: no bank here. Did you mean my-bank?" in run("bank", "list", "mybank").stderr
    assert "shards_out: no such folder. Did you mean shards-out?" in run("push", "shards_out", "s3://x/y").stderr
    assert "mseg7 is several datasets" in run("shard", "mseg7", "--root", ".", "--check").stderr


WHAT_IS_MISSING = """
import sys
from labelmerge.cli.main import cli
COMPARE = "compare --shards shards --bank bank --eval-shards shards --out c"
for words, said in (
    ("train --shards data --bank nowhere --out run", "nowhere: no bank here"),
    ("train --shards data --bank bank --out run", "data: no shards here"),
    ("train --shards none --bank bank --out run", "none: no such folder"),
    ("train --shards shards --bank bank --out new --init nowhere", "nowhere: no such run"),
    ("eval --checkpoint nowhere --shards shards --out r.json", "nowhere: no such run"),
    ("predict photo.jpg --checkpoint data --labels road --out m", "data: there is no checkpoint here"),
    ("predict photo.jpg --checkpoint run --labels , --out m", "no labels"),
    ("predict data --checkpoint run --labels road --out m", "no images in this folder"),
    ("compare table99 --out c", "no comparison is called 'table99'"),
    (f"{COMPARE} --vary merge=name merge=nam", "nam: merge must be one of"),
    (f"{COMPARE} --vary merg=name", "unknown setting 'merg'"),
    (f"{COMPARE} --vary merge=name --set stepps=3", "unknown setting 'stepps'"),
    (f"{COMPARE} --vary bank=bank bank=nowhere", "given for all variants"),
    (f"{COMPARE} --vary init=nowhere", "nowhere: no such run"),
    (f"{COMPARE} --vary merge=name --eval-shards none", "none: no such folder"),
    (f"{COMPARE.partition(' --eval-shards')[0]} --out c --vary merge=name", "nothing to measure on"),
):
    from click.testing import CliRunner
    done = CliRunner().invoke(cli, words.split())
    assert done.exit_code and said in done.output, (words, done.output)
assert "torch" not in sys.modules
"""


def test_what_is_missing_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    """It takes seconds."""
    (tmp_path / "data").mkdir()
    (tmp_path / "photo.jpg").touch()
    vector = np.ones((1, 1), np.float32)
    Bank("made", {"model": "made"}, "{name}", [("streets", 0)], ["road"], ["road"], vector, [1], [False]).save(
        tmp_path / "bank"
    )
    (tmp_path / "shards/streets/train").mkdir(parents=True)
    (tmp_path / "shards/streets/train/manifest.json").touch()
    for name in ("model.safetensors", "state.pt", "config.toml", "meta.json"):
        path = tmp_path / "run/checkpoints/step-000001" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = subprocess.run([sys.executable, "-P", "-c", WHAT_IS_MISSING], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run/config.toml").exists()


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "labelmerge", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("labelmerge, version "), done.stderr


def test_quiet_may_stand_anywhere_and_leaves_results_alone(run: Run, tmp_path: Path) -> None:
    names = tmp_path / "mine.txt"
    names.write_text("car\n")
    assert run("ls", names, "--quiet").output == run("-q", "ls", names).output != ""
    assert run("ls", "-q", "--verbose").exit_code == 2


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    OPTIONS.be_quiet(False)
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    bar = OPTIONS.track(range(8), "training", 8)
    bar.set_postfix_str("loss 1.5")
    assert list(bar) == list(range(8))
    assert capsys.readouterr().err.splitlines() == [
        "training: 3 of 8 (38%), 1 min, about 2 min left, loss 1.5",
        "training: 6 of 8 (75%), 2 min, about 1 min left, loss 1.5",
    ]
    span = importlib.import_module("labelmerge.cli.log_lines").span
    assert [span(60 * minutes) for minutes in (0.2, 89, 150, 3000)] == ["1 min", "89 min", "2.5 h", "2.1 days"]
    OPTIONS.be_quiet(True)
    assert OPTIONS.track([1], "training") == [1]
    OPTIONS.be_quiet(False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    return tmp_path


def test_a_file_and_the_environment_give_options(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "labelmerge.toml").write_text('bank = "my bank"\nworkers = 3\n[train]\nbatch-size = 4\n')
    shown: dict[str, Any] = json.loads(run("config", "--json").output)
    assert shown["shared"]["bank"] == {"value": "../my bank", "from": str(here / "labelmerge.toml")}
    assert shown["commands"] == {"train": {"batch-size": 4}}
    assert "../my bank: no bank here" in run("plot", "map", "--out", "map.png").stderr
    assert "../my bank: no bank here" in run("bank", "list").stderr
    assert "other: no bank here" in run("plot", "map", "--bank", "other", "--out", "map.png").stderr
    monkeypatch.setenv("LABELMERGE_BANK", "third")
    assert "third: no bank here" in run("plot", "map", "--out", "map.png").stderr
    assert "LABELMERGE_BANK" in run("config").output


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("bnak = 'x'\n", "'bnak' is neither a setting nor a command. Did you mean bank"),
        ("[train]\nprest = 'tiny'\n", "[train] has 'prest', which is not an option of it. Did you mean preset"),
        ("train = 3\n", "'train' must be a table"),
        ("bank = ", "can't be read as TOML"),
        ("bank = 3\n", "'bank' must be a text, not 3"),
        ("shards = [3]\n", "'shards' must be a text or a list of texts, not [3]"),
        ("workers = 2.5\n", "'workers' must be a whole number, not 2.5"),
        ("[train]\nsteps = [1]\n", "[train] 'steps' must be a text, not [1]"),
        ("[train]\nsteps = 2.5\n", "[train] 'steps': '2.5' is not a valid whole number"),
        ("[predict]\nflip = 'no'\n", "[predict] 'flip' must be true or false, not 'no'"),
    ],
)
def test_a_wrong_file_is_said(run: Run, here: Path, text: str, answer: str) -> None:
    (here / "labelmerge.toml").write_text(text)
    result = run("config")
    assert result.exit_code == 1
    assert answer in result.stderr


def test_a_mistyped_variable_is_named(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_BNAK", "bank")
    assert (
        "LABELMERGE_BNAK is set, and is no variable of labelmerge's. Did you mean LABELMERGE_BANK" in run("ls").stderr
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("labelmerge sha", "shard"),
        ("labelmerge embed citysc", "cityscapes"),
        ("labelmerge train --preset seg", "segformer-b5"),
        ("labelmerge embed x --encoder off", "offline"),
        ("labelmerge shard --sp", "--split"),
        ("labelmerge train --preset", "--preset"),
        ("labelmerge compare --vary", "--vary"),
        ("labelmerge train --method us", "usss"),
        ("labelmerge train --model tin", "tiny"),
        ("labelmerge merge --device cu", "cuda"),
        ("labelmerge embed mseg", "mseg7"),
    ],
)
def test_a_shell_completes(words: str, expected: str) -> None:
    environment = {
        "_LABELMERGE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    output = CliRunner().invoke(CLI, [], prog_name="labelmerge", env=environment).output
    assert output.splitlines()[0] == f"plain,{expected}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_answers_no_words_at_all_and_completes_its_options(
    run: Run, here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(name)
    assert result.exit_code in (0, 2) and not isinstance(result.exception, ValueError), result.exception
    monkeypatch.setenv("_LABELMERGE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"labelmerge {name} -")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert "plain,--help" in CliRunner().invoke(CLI, [], prog_name="labelmerge").output.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(run: Run, shell: str) -> None:
    output = run("completion", shell).output
    assert "_LABELMERGE_COMPLETE" in output and "labelmerge" in output


def test_ls_takes_patterns_filters_and_several_names(run: Run) -> None:
    names = [row["name"] for row in json.loads(run("ls", "coco*", "camvid", "--json").output)]
    assert names == ["coco_panoptic", "camvid"]
    assert {row["type"] for row in json.loads(run("ls", "--type", "box", "--json").output)} == {"box"}
    riders = [row["name"] for row in json.loads(run("ls", "--label", "Rider", "--json").output)]
    assert "cityscapes" in riders and "camvid" not in riders
    assert [page["name"] for page in json.loads(run("ls", "voc", "kitti", "--json").output)] == ["voc", "kitti"]
    assert "no dataset matches 'zz*'" in run("ls", "zz*").stderr
    assert "no dataset has a class 'ridr'. Did you mean rider" in run("ls", "--label", "ridr").stderr


def test_a_recipe_that_lies_here_is_found_by_the_name_in_it(run: Run, here: Path) -> None:
    (here / "below/streets.toml").write_text('name = "my_streets"\n')
    (here / "below/broken.toml").write_text("name = \n")
    (here / "below/my_yard").mkdir()
    (here / "below/my_yard.toml").write_text('name = "my_yard"\n')
    for name, file in (("my_streets", "streets.toml"), ("my_yard", "my_yard.toml")):
        assert f"Did you mean {file}, which lies here?" in run("embed", name, "--out", "bank").stderr


def test_a_merge_of_a_bank_takes_paths_of_lists_as_their_names(run: Run, here: Path) -> None:
    (here / "below/mine.csv").write_text("name\ncar\nsky\n")
    assert run("embed", "mine.csv", "camvid", "kitti", "--encoder", "offline", "--out", "bank").exit_code == 0
    done = run("merge", "mine.csv", "camvid", "--bank", "bank", "--out", "merge", "--json")
    assert json.loads(done.stdout)["datasets"] == {"camvid": 11, "mine": 2}, done.stderr


def test_a_bank_that_is_not_named_is_asked_for(run: Run, here: Path) -> None:
    (here / "below/own").mkdir()
    (here / "below/own/bank.json").write_text("{}")
    for words in (["diff", "1", "2"], ["show", "--label", "car"], ["list"]):
        said = run("bank", *words).stderr
        assert f"no bank is named. Give its folder, `labelmerge bank {' '.join([words[0], 'own', *words[1:]])}`" in said


def test_a_bank_is_looked_into_by_label_and_number(run: Run, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    for dataset in ("camvid", "kitti"):
        assert run("embed", dataset, "--encoder", "offline", "--out", bank).exit_code == 0
    shown = run("bank", "show", bank, "--label", "car", "--label", "camvid:Road")
    assert "camvid 8 Car" in shown.output and "camvid 3 Road" in shown.output, shown.output
    assert "3 labels with 2 distinct texts" in shown.output
    (newest,) = (line.split()[0] for line in run("bank", "list", bank).output.splitlines() if line.startswith("v0002"))
    assert newest in run("bank", "show", bank, "--label", "car", "--dataset", "camvid").output
    assert run("merge", "--bank", bank, "camvid", "--out", tmp_path / "merge").exit_code == 0
    assert json.loads((tmp_path / "merge/merge.json").read_text())["version"] == newest
    assert "+ kitti" in run("bank", "diff", bank, "1", "2").output
    assert "kitti" not in run("bank", "show", bank, "--version", "1").output
    environment = {"LABELMERGE_BANK": str(bank)}
    result = CliRunner().invoke(CLI, ["bank", "diff", "1", "v2"], prog_name="labelmerge", env=environment)
    assert "+ kitti" in result.output, result.stderr


def test_a_list_that_is_named_twice_is_said_to_count_once(run: Run, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.txt", tmp_path / "other.txt"
    mine.write_text("pavement\nbus and coach\n")
    other.write_text("sidewalk\n")
    result = run("merge", mine, mine, other, "--out", tmp_path / "page")
    assert result.exit_code == 0, result.output
    assert f"{mine} is named more than once, and counts once" in result.stderr
    assert "3 labels" in result.stdout


def test_labels_of_ones_own_that_may_be_several_things_are_named(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("road\nbus or truck\ncar/bus\n")
    result = run("merge", mine, "--out", tmp_path / "page")
    assert "Taken for any of several things: mine's bus or truck (bus or truck), mine's car/bus" in result.stdout
