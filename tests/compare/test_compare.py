"""`labelmerge compare`: the plan, what is refused before anything runs, and going on where something stopped."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from labelmerge.compare.compare import run_plan
from labelmerge.compare.plan import Job, Plan
from labelmerge.compare.variants import Variant, find_variants
from labelmerge.errors import UsageError
from labelmerge.model.checkpoint import find_checkpoint

from ..loading.toy_shards import Toy, toy_bank

STREETS = Toy("streets", ("road", "sky", "car"))
THINGS = Toy("things", ("cup", "car"), "box", count=5, colours=(4, 2))
VILLAGE = Toy("village", ("car", "lawn"), split="val", count=3)
TOWN = Toy("town", ("road", "sky"), split="test", count=2)
QUICK = ("--steps", 2, "--batch-size", 2, "--crop", 32, "--device", "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Shards, two banks and two evaluation sets, in the current folder."""
    for toy in (STREETS, THINGS):
        toy.write(tmp_path / "shards")
    for toy in (VILLAGE, TOWN):
        toy.write(tmp_path / "held-out")
    toys = [STREETS, THINGS, VILLAGE, TOWN]
    toy_bank(toys).save(tmp_path / "bank")
    toy_bank(toys, 8, encoder="words").save(tmp_path / "bank-words")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*more: object, bank: str | None = "bank") -> tuple[object, ...]:
    banks = ("--bank", bank) if bank else ()
    return ("compare", "--shards", "shards", *banks, "--eval-shards", "held-out", "--out", "out", *QUICK, *more)


class InProcess:
    """Stands for `subprocess.Popen`: runs a command of labelmerge here, and writes down which."""

    ran: list[str] = []
    fails: str = ""

    def __init__(self, command: Sequence[str], **_: Any) -> None:
        assert Path(command[0]).name == "labelmerge"
        self.words = list(command[1:])

    def wait(self) -> int:
        verb, folder = self.words[0], Path(self.words[self.words.index("--out") + 1])
        name = f"{verb} {folder.name if verb == 'train' else folder.parent.name}"
        self.ran.append(name)
        if name == self.fails:
            return 1
        main = importlib.import_module(f"labelmerge.cli.{verb}").command.main
        with contextlib.redirect_stdout(io.StringIO()):
            main(self.words[1:], standalone_mode=False)
        return 0


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has run since it was last cleared."""
    monkeypatch.setattr("labelmerge.compare.compare.Popen", InProcess)
    monkeypatch.setattr(InProcess, "ran", [])
    monkeypatch.setattr(InProcess, "fails", "")
    return InProcess.ran


def test_each_variant_is_trained_and_measured_once(run: Any, place: Path, ran: list[str]) -> None:
    args = arguments("--vary", "merge=naive", "merge=text")
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert ran == ["train naive", "eval naive", "train text", "eval text"]
    head, naive, text, _, last = result.stdout.splitlines()
    assert head.split() == ["mIoU", "%", "town-test", "village-val", "harmonic", "mean"]
    assert (naive.split()[0], text.split()[0]) == ("naive", "text")
    assert last == "Wrote out/report.html and report.md"
    assert "1/2 naive: trained, loss " in result.stderr and "2/2 text: measured, harmonic mean" in result.stderr

    # Each with the vectors that it was trained with.
    measured = {name: json.loads((place / f"out/{name}/results.json").read_text()) for name in ("naive", "text")}
    assert [measured[name]["protocol"]["bank"]["encoder"] for name in measured] == ["one-hot", "toy"]
    classes = {row["name"]: row.get("predicted_as", 0) for row in measured["naive"]["sets"][1]["classes"]}
    assert classes == {"car": 0, "lawn": None}  # no training label is called lawn
    report = (place / "out/report.md").read_text()
    assert "| naive | naive |" in report and "| text | text |" in report

    ran.clear()
    again = run(*args, "--json")
    assert again.exit_code == 0 and ran == []
    said = json.loads(again.stdout)
    assert [variant["state"] for variant in said["variants"]] == ["measured"] * 2
    assert said["variants"][0]["folder"] == "out/naive" and said["variants"][0]["settings"] == {"merge": "naive"}
    assert said["variants"][0]["harmonic_mean"] == measured["naive"]["harmonic_mean"]
    assert list(said["variants"][0]["miou"]) == ["town-test", "village-val"]

    plan = json.loads(run(*args, "--print", "--json").stdout)
    assert [variant["state"] for variant in plan["variants"]] == ["measured"] * 2

    results = place / "out/text/results.json"  # measured by hand, in another way
    otherwise = {**measured["text"], "reproduce": measured["text"]["reproduce"] + " --by text"}
    results.write_text(json.dumps(otherwise))
    plan = json.loads(run(*args, "--print", "--json").stdout)
    assert [variant["state"] for variant in plan["variants"]] == ["measured", "trained"]
    results.write_text(json.dumps(measured["text"]))

    other = run(*args, "--lr", 1)
    assert other.exit_code == 1 and not ran
    line = other.stderr.splitlines()[-1]
    assert line.startswith("Error: out: naive, text: another run is here") and "lr was 0.002 and is now 1.0" in line


def test_the_same_command_does_what_is_left(run: Any, place: Path, ran: list[str]) -> None:
    args = arguments("--vary", "merge=name", "merge=text")
    InProcess.fails = "train text"
    half = run(*args, "--json")
    assert half.exit_code == 1
    assert ran == ["train name", "eval name", "train text"]
    assert [variant["state"] for variant in json.loads(half.stdout)["variants"]] == ["measured", "training failed"]
    assert "2/2 text: training failed (exit status 1): " in half.stderr
    last = half.stderr.splitlines()[-1]
    assert last.startswith("Error: out: 1 of 2 variants failed: text (training). The same command")
    assert "| name | name |" in (place / "out/report.md").read_text()

    ran.clear()
    InProcess.fails = ""
    assert run(*args).exit_code == 0
    assert ran == ["train text", "eval text"]

    def left(*more: object) -> list[str]:
        ran.clear()
        result = run(*args, *more)
        assert result.exit_code == 0, result.output
        return list(ran)

    both = ["eval name", "eval text"]
    assert left("--eval-scales", "0.5,0.3333333333") == both  # measured in another way
    assert left("--eval-scales", "0.5,0.3333333333") == []
    assert left("--eval-limit", 1, "--eval-short-edge", 20, "--eval-window", 16, "--eval-window-stride", "1/3") == both
    assert left() == both
    (place / "out/name/results.json").write_text('{"format": ')
    assert left() == ["eval name"]
    foreign = json.loads((place / "out/name/results.json").read_text())
    foreign["protocol"]["bank"]["content_sha256"] = "0" * 64  # `eval --bank OTHER` wrote it
    (place / "out/name/results.json").write_text(json.dumps(foreign))
    assert left() == ["eval name"]
    older = json.loads((place / "out/name/results.json").read_text()) | {"labelmerge": "0.0.1"}
    (place / "out/name/results.json").write_text(json.dumps(older))
    assert left() == ["eval name"]
    shutil.rmtree(find_checkpoint(place / "out/text"))
    assert left() == ["train text", "eval text"]


def test_a_part_of_the_classes_is_measured_and_measured_again_where_it_is_another(
    run: Any, place: Path, ran: list[str]
) -> None:
    Toy("village", ("car", "lawn", "hill"), split="val", count=3).write(place / "fields")
    toy_bank([STREETS, THINGS, Toy("village", ("car", "lawn", "hill"))]).save(place / "bank3")
    plain = arguments("--vary", "merge=text", "merge=naive", bank="bank3")
    args = tuple("fields" if word == "held-out" else word for word in plain)
    assert run(*args, "--eval-leave-out", "Hill").exit_code == 0
    results = json.loads((place / "out/text/results.json").read_text())
    assert results["protocol"]["classes"] == {"leave_out": ["Hill"]}
    assert [row["name"] for row in results["sets"][0]["classes"]] == ["car", "lawn"]
    ran.clear()
    assert run(*args, "--eval-leave-out", "Hill").exit_code == 0 and ran == []
    assert run(*args).exit_code == 0 and ran == ["eval text", "eval naive"]


def test_a_killed_variant_is_one_line_and_the_others_run(run: Any, place: Path) -> None:
    """The commands as real processes, behind a launcher that kills one of them."""
    launcher = place / "launcher.py"
    launcher.write_text(
        "import os, signal, sys\n"
        "if 'merge=naive' in sys.argv: os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    vary = ("--vary", "merge=naive", "merge=text")
    result = run(*arguments(*vary, "--json", "--launcher", shlex.join([sys.executable, str(launcher)])))
    assert result.exit_code == 1
    assert "1/2 naive: training failed (killed by SIGKILL): " in result.stderr
    assert "Error: out: 1 of 2 variants failed: naive (training)" in result.stderr.splitlines()[-1]
    naive, text = json.loads(result.stdout)["variants"]
    assert naive["miou"] == {} and text["state"] == "measured" and len(text["miou"]) == 2
    assert (place / "out/report.html").is_file() and not (place / "out/naive").exists()


def test_print_shows_the_commands_and_runs_nothing(run: Any, place: Path) -> None:
    (place / "groups.csv").write_text(
        "dataset,index,name,group\nstreets,0,road,a\nstreets,1,sky,b\nstreets,2,car,c\nthings,0,cup,d\nthings,1,car,c\n"
    )
    views = ("--eval-short-edge", 40, "--eval-scales", "0.5:1:0.5", "--eval-flip", "--eval-split", "test")
    task = ("--eval-task", "panoptic", "instances")
    vary = ("--vary", "merge=naive", "merge=table+taxonomy=groups.csv", "--vary", "losses=hd", "losses=hd,wd")
    result = run(*arguments(*vary, *views, *task, "--print", "--launcher", "torchrun --no-python", "--channels-last"))
    assert result.exit_code == 0, result.output
    *lines, report = result.stdout.splitlines()
    names = ["naive+hd", "naive+hd,wd", "table+groups.csv+hd", "table+groups.csv+hd,wd"]
    assert lines[2] == (
        f"torchrun --no-python labelmerge train --shards shards --bank bank --out out/{names[2]} --device cpu "
        "--set steps=2 batch_size=2 crop=32 channels_last=true merge=table taxonomy=groups.csv losses=hd && "
        f"torchrun --no-python labelmerge eval --checkpoint out/{names[2]} --shards held-out "
        f"--out out/{names[2]}/results.json --short-edge 40 --scales 0.5,1 --flip --split test "
        "--task panoptic instances --device cpu"
    )
    assert report == shlex.join(["labelmerge", "report", *(f"out/{name}" for name in names), "--out", "out"])
    assert not (place / "out").exists()
    for line in [*lines, report]:  # words that the commands understand
        for words in (shlex.split(part) for part in line.split(" && ")):
            verb, *rest = words[words.index("labelmerge") + 1 :]
            command = importlib.import_module(f"labelmerge.cli.{verb}").command
            assert isinstance(command.make_context(verb, rest), click.Context)


def test_the_commands_of_the_documentation_can_be_given_as_they_stand() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ labelmerge compare (.+)$", page.replace("\\\n", " "), flags=re.MULTILINE)
    whole = [shlex.split(command) for command in commands if "…" not in command]
    command = importlib.import_module("labelmerge.cli.compare").command
    variants = [len(find_variants(command.make_context("compare", words).params["vary"])) for words in whole]
    assert variants == [2, 3, 2, 4, 1]  # the last adds to a comparison that ships


def test_everything_is_refused_before_anything_runs(run: Any, place: Path, ran: list[str]) -> None:
    def fault(*more: object, bank: str | None = "bank") -> str:
        result = run(*arguments(*more, bank=bank))
        assert result.exit_code in (1, 2) and "Traceback" not in result.output
        assert not (place / "out").exists() and not ran
        return str(result.stderr.strip().splitlines()[-1])

    assert "unknown setting 'merg'. Did you mean merge" in fault("--vary", "merg=naive")
    assert "'merge' is not KEY=VALUE" in fault("--vary", "merge")
    assert "is given twice" in fault("--vary", "merge=name", "merge=name")
    assert "one variant two values of taxonomy" in fault("--vary", "merge=table+taxonomy=a", "--vary", "taxonomy=b")
    assert "lr=1e-3: is the same as lr=0.001" in fault("--vary", "lr=0.001", "lr=1e-3")
    assert "xd: losses must be some of" in fault("--vary", "losses=hd", "losses=xd")
    line = fault("--vary", "merge=naive", "merge=names", "losses=hd", "losses=hd,hd")
    assert "naive+hd,hd: losses must be some of" in line and "names+hd: merge must be one of" in line
    assert "steps is varied, and also given for all" in fault("--vary", "steps=1", "steps=2")
    assert "unknown preset 'tinny'. Did you mean tiny" in fault("--vary", "preset=tinny", "preset=tiny")
    assert "no bank to train with. Give --bank" in fault("--vary", "merge=name", bank=None)
    assert "bank is varied, and also given" in fault("--vary", "bank=bank", "bank=bank-words")
    assert "nowhere" in fault("--vary", "bank=bank", "bank=nowhere", bank=None)
    assert "table: merge = table needs a taxonomy" in fault("--vary", "merge=table", "merge=name")
    assert "name: merge = name takes no taxonomy" in fault("--vary", "merge=name", "--taxonomy", "m.csv")
    assert "no such run or checkpoint" in fault("--vary", "init=nowhere", "init=")
    assert "no pretrained weights" in fault("--vary", "seed=1", "seed=2", "--pretrained", "imagenet")
    assert "elsewhere: no such folder" in fault("--vary", "merge=name", "--eval-shards", "elsewhere")
    assert "no device 'cuda:77'" in fault("--vary", "merge=name", "--device", "cuda:77")
    assert "no set has a class 'lwan'. Did you mean lawn" in fault("--vary", "merge=name", "--eval-leave-out", "lwan")
    assert "village-val is left with 1 of its classes" in fault("--vary", "merge=name", "--eval-only", "car, sky, road")
    tasks = ("--eval-task", "panoptic", "--eval-only", "car, lawn")
    assert "some classes alone are measured by pixels" in fault("--vary", "merge=name", *tasks)
    assert "can't be read as a shell would" in fault("--vary", "merge=name", "--launcher", "torchrun 'x")
    assert "there is no program 'nosuchlauncher' here" in fault("--vary", "merge=name", "--launcher", "nosuchlauncher")
    assert "nothing varies. Give --vary KEY=VALUE" in fault()
    Toy("sea", ("water", "ship"), split="val").write(place / "held-out")
    assert "no vector for 2 labels" in fault("--vary", "merge=name", "merge=naive")


def test_variants_are_called_by_their_values() -> None:
    def names(*vary: str) -> list[str]:
        return [variant.name for variant in find_variants(vary)]

    assert names("losses=hd", "losses=hd,ld") == ["hd", "hd,ld"]
    assert names("lr=1e+3", "lr=0.1", "compile=true") == ["lr=1e+3+compile=true", "lr=0.1+compile=true"]
    assert names("bank=banks/words", "bank=/data/sentences/") == ["words", "sentences"]
    assert names("bank=a/bank", "bank=b/bank") == ["a-bank", "b-bank"]
    assert names("weights={ade20k = 2}", "pretrained=") == ["weights=-ade20k=2+pretrained="]
    assert names("merge=naive", "merge=name", "seed=0", "seed=1") == [
        "naive+seed=0", "naive+seed=1", "name+seed=0", "name+seed=1",
    ]  # fmt: skip
    for name in names("init=..", "init=.", "init=a/b c"):
        assert name and not name.startswith(".") and "/" not in name and " " not in name
    with pytest.raises(UsageError, match="would be named"):
        find_variants(["init=a b", "init=a-b"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_ends_the_command_that_runs(tmp_path: Path, number: signal.Signals) -> None:
    running = tmp_path / "pid"
    job = Job(Variant("x", {}), tmp_path / "x", (f"echo $$ > {running}; exec sleep 60",), (), False, False)
    # A process that a shell started in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_plan(Plan(tmp_path, (job,), ()), ["sh", "-c"])
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(running.read_text()), 0)


def test_an_interrupt_is_one_line(run: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelmerge.compare.compare._run", interrupt)
    result = run(*arguments("--vary", "merge=name"))
    assert result.exit_code == 1
    assert result.stderr == "\nError: out: interrupted. The same command goes on where it stopped\n"
