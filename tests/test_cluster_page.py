"""docs/cluster.md: scripts run where they can, all of them parse, and the figures follow from the measured rates."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGE = (_DOCS / "cluster.md").read_text("utf-8")
_MEASURED = (_DOCS / "performance.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _PAGE, re.DOTALL | re.MULTILINE)


def test_all_blocks_are_of_a_kind_that_is_checked() -> None:
    kinds = re.findall(r"^```(\w+)\n", _PAGE, re.MULTILINE)
    assert sorted(set(kinds)) == ["bash", "console", "dockerfile", "yaml"]  # console: tests/test_docs.py


def options_exist(script: str) -> int:
    """How many calls of labelmerge are in a script; all their options exist."""
    cli: click.Group = importlib.import_module("labelmerge.cli.main").cli
    calls = re.findall(r"labelmerge ([a-z]+)((?: [^\n;&|]*)?)", script.replace("\\\n", " "))
    for name, rest in calls:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = {flag for param in command.params for flag in param.opts}
        flags = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest))
        assert flags <= known, f"{name}: {flags - known}"
    return len(calls)


@pytest.mark.parametrize("script", blocks("bash"))
def test_scripts_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    assert options_exist(script) == 1
    wrong = [
        line
        for line in script.splitlines()
        if line.startswith("#SBATCH") and not re.match(r"#SBATCH --[a-z-]+(=\S+)?$", line)
    ]
    assert not wrong


def test_the_array_and_the_job_after_it_make_whole_shards(tmp_path: Path) -> None:
    from labelmerge.demo.datasets import write_worlds

    roots = write_worlds(tmp_path / "data", 4, seed=0)
    script, after, _ = blocks("bash")
    script = re.sub(r"for dataset in .*; do", "for dataset in cityscapes; do", script).replace(
        "/data/", f"{roots['cityscapes'].parent}/"
    )
    finish = re.search(r'--wrap "(.*)"', after)
    assert finish is not None
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "labelmerge").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m labelmerge "$@"\n')
    (bin_ / "labelmerge").chmod(0o755)

    def go(text: str, **more: str) -> None:
        environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", **more}
        text = text.replace("/scratch/", f"{tmp_path}/")
        done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    for part in ("1", "2"):
        go(script, SLURM_ARRAY_TASK_ID=part, SLURM_ARRAY_TASK_COUNT="2", SLURM_CPUS_PER_TASK="1")
    go(finish[1])
    assert (tmp_path / "shards/cityscapes/train/manifest.json").is_file()


def test_a_job_at_its_time_limit_asks_to_be_queued_again(tmp_path: Path) -> None:
    train = blocks("bash")[-1]
    assert "#SBATCH --signal=B:USR1@" in train
    for name, text in (("scontrol", 'echo "$@" >> said'), ("srun", 'echo "$@" > ran; exec sleep 60')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_NNODES": "4", "SLURM_CPUS_PER_TASK": "64"}
    environment = {**slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = subprocess.Popen(["bash", "-c", train], cwd=tmp_path, env=environment, start_new_session=True)
    try:
        for _ in range(200):
            if (tmp_path / "ran").exists():
                break
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGUSR1)
        job.wait(timeout=20)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "said").read_text() == "show hostnames n[1-4]\nrequeue 7\n"
    assert (tmp_path / "ran").read_text().startswith("--cpus-per-task 64 torchrun --nnodes 4 ")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_kubernetes_jobs(text: str) -> None:
    job: dict[str, Any] = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]} and pod["restartPolicy"] == "Never"
    shell, flag, script = container["command"]
    assert (shell, flag) == ("sh", "-c") and "\n" not in script.strip()
    assert subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True).stderr == ""
    assert options_exist(script) == 1
    if job["spec"].get("completionMode") == "Indexed":
        shown = subprocess.run(
            ["sh", "-c", script.replace("labelmerge", "echo")],
            env={"JOB_COMPLETION_INDEX": "0", "PATH": os.environ["PATH"]}, capture_output=True, text=True,
        ).stdout  # fmt: skip
        assert shown.strip().endswith(f"--part 1/{job['spec']['completions']}")


def test_the_image() -> None:
    (text,) = blocks("dockerfile")
    assert [line.split()[0] for line in text.splitlines()] == ["FROM", "RUN", "ENV"]
    extra = re.search(r"labelmerge-seg\[(\w+)\]", text)
    assert extra is not None and f"{extra[1]} = [" in (_DOCS.parent / "pyproject.toml").read_text()


def rows(head: str) -> list[list[str]]:
    table = _PAGE[_PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def number(text: str) -> float:
    found = re.search(r"[\d,]*\.?\d+", text)
    assert found is not None, text
    return float(found[0].replace(",", ""))


def test_the_figures_follow_from_the_measured_rates() -> None:
    rates = {"the rest": 40.0, "boxes": 25_000 / 316}
    for kind in ("bdd100k", "cityscapes", "coco_panoptic"):
        line = next(line for line in _MEASURED.splitlines() if line.startswith(f"| {kind} | labelmerge shard |"))
        rates[f"`{kind}`"] = float(line.split("|")[6])
    assert "40 images a CPU second" in _MEASURED and "| 25,000 | 5.0 million | 1.29 GB | 365 MiB | 316 s |" in _MEASURED
    assert "0.4 MB an image at short edge 1080, 30 KB a mask, 250 samples a shard" in _MEASURED
    *sets, (_, images, _, _, hours, size) = rows("| dataset | images |")
    for _, count, rate, kind, spent, disk in sets:
        assert number(rate) == pytest.approx(rates[kind], abs=0.2)
        assert number(spent) == pytest.approx(number(count) / rates[kind] / 3600, abs=0.02)
        assert number(disk) == pytest.approx(number(count) * 0.43 / 1000, abs=0.06)
    total = sum(number(row[1]) for row in sets)
    assert number(images) == total and 1.9e6 < total < 2e6
    cpu = sum(number(row[1]) / rates[row[3]] / 3600 for row in sets)
    gigabytes = total * 0.43 / 1000
    assert number(hours) == pytest.approx(cpu, abs=0.06) and number(size) == pytest.approx(gigabytes, abs=0.6)
    amounts = {name: number(amount) for name, amount, _ in rows("| | amount |")}
    samples = 160_000 * 144
    assert re.search(r"training \| 13\.6 hours.* \| 59 images/s on each GPU", _MEASURED)
    expected = {
        "sharding, 16 jobs of 4 cores": cpu / 64 * 60,
        "shards": gigabytes / 1000,
        "`push`, or a machine's first fetch, at 1 Gb/s": gigabytes * 8 / 3600,
        "the same at 10 Gb/s": gigabytes * 8 / 10 / 60,
        "training, 8 GPUs": samples / (59 * 8) / 3600,
        "training, 32 GPUs, if nothing is lost between machines": samples / (59 * 32) / 3600,
        "reading by 8 GPUs": 59 * 8 * 0.4,
    }
    for name, value in expected.items():
        assert amounts[name] == pytest.approx(value, rel=0.05), name
