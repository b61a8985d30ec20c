"""`labelmerge compare NAME`: every comparison that ships, end to end at the smallest size, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelmerge.compare.named import names_of_comparisons

from ..loading.toy_shards import Toy, toy_bank
from .test_compare import ran

__all__ = ["ran"]  # a fixture

STREETS = Toy("streets", ("road", "sky", "car"))
ROOMS = Toy("rooms", ("wall", "car"), colours=(3, 2))
YARDS = Toy("yards", ("lawn", "wall"), colours=(4, 3))
TINY = ("--steps", 1, "--crop", 32, "--device", "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Training shards of streets and rooms, others of yards, and validation shards of the first two; a bank of all."""
    for toy in (STREETS, ROOMS):
        toy.write(tmp_path / "shards")
        replace(toy, split="val", count=2).write(tmp_path / "val")
    YARDS.write(tmp_path / "others")
    toy_bank([STREETS, ROOMS, YARDS]).save(tmp_path / "bank")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(name: str, *more: object, shards: str = "shards", val: str = "val") -> tuple[object, ...]:
    return ("compare", name, "--shards", shards, "--bank", "bank", "--eval-shards", val, "--out", "out", *TINY, *more)


def test_fine_tuning(run: Any, place: Path, ran: list[str]) -> None:
    first = run(
        "train", "--shards", "others", "--bank", "bank", "--out", "first", "--batch-size", 2, *TINY
    )  # fmt: skip
    assert first.exit_code == 0, first.output
    words = compare("table8", "--with", "run=first", "--batch-size", 2, shards="shards/streets", val="val/streets")
    done = run(*words)
    assert done.exit_code == 0, done.output
    rows = [line.split()[0] for line in done.stdout.splitlines()[1:5]]
    assert rows == [f"{head}+{begin}" for head in ("usss+cross_weight=0+within_weight=0", "ssiw")
                    for begin in ("init=", "first+encoder_only=true")]  # fmt: skip
    again = run(*words)
    assert again.exit_code == 0 and ran.count("train ssiw+first+encoder_only=true") == 1  # what is done is not repeated
    sweep = run(*words[:-2], "--batch-size", 2, "--vary", "labelled=streets=1", "labelled=streets=3", "--print")
    assert sweep.exit_code == 0 and sum("labelmerge train" in line for line in sweep.stdout.splitlines()) == 8


def test_few_labels(run: Any, place: Path, ran: list[str]) -> None:
    done = run(*compare("usss", "--labelled", "streets=2,rooms=3", "--batch-size", 4))
    assert done.exit_code == 0, done.output
    assert ran[:4] == ["train alone-rooms", "eval alone-rooms", "train alone-streets", "eval alone-streets"]
    assert ran[4:] == [f"{what} {name}" for name in (
        "usss+cross_weight=0+within_weight=0", "usss+alone-rooms,alone-streets", "usss+random", "ssiw", "ssiw+entropy",
        "ssiw+consistency",
    ) for what in ("train", "eval")]  # fmt: skip
    # Each dataset alone has its own labels, and is measured on its own images.
    alone = json.loads((place / "out/first/alone-rooms/results.json").read_text())
    assert [each["dataset"] for each in alone["sets"]] == ["rooms"]
    assert alone["protocol"]["checkpoint"]["labelled"] == {"rooms": 3}
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:9]}
    assert rows["first/alone-rooms"][1] == "-" and "-" not in rows["ssiw+entropy"]


def test_pretraining(run: Any, place: Path, ran: list[str]) -> None:
    words = compare("mdp", "--batch-size", 2, shards="shards/streets", val="val/streets")
    missing = run(*words)
    assert missing.exit_code == 2 and "mdp needs the shards to pretrain on" in missing.output
    assert "--with others=" in missing.output
    words = (*words, "--with", "others=others", "--labelled", "streets=2")
    printed = run(*words, "--print")
    assert printed.exit_code == 0 and len(printed.stdout.splitlines()) == 8 + 9 + 1
    assert not ran
    done = run(*words)
    assert done.exit_code == 0, done.output
    parts = ["mdp-without-mixing", "mdp-without-sparse", "mdp-prototypes", "mdp-concepts", "mdp-pixels"]
    firsts = ["union", "ssiw", "mdp", *parts]
    assert ran[:8] == [f"train {name}" for name in firsts]  # not measured: they know other words
    rows = ["init=", *(f"{name}+encoder_only=true" for name in firsts)]
    assert ran[8:] == [f"{what} {name}" for name in rows for what in ("train", "eval")]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:10]] == rows
    for name in firsts:
        config = (place / "out/first" / name / "config.toml").read_text()
        assert "labelled" not in config or "streets" not in config.split("labelled")[1].splitlines()[0]


def test_runs_trained_first_are_as_many_as_what_is_swept_needs(run: Any, place: Path) -> None:
    def planned(*words: object) -> dict[str, dict[str, str]]:
        """The settings of every run by name."""
        done = run(*words, "--batch-size", 4, "--print", "--json")
        assert done.exit_code == 0, done.output
        found = {}
        for each in json.loads(done.stdout)["variants"]:
            texts = each["train"][each["train"].index("--set") + 1 :]
            found[each["name"]] = dict(text.partition("=")[::2] for text in texts)
        return found

    # Few labels: a dataset that keeps as many is trained alone once; centroids are never of labels that are hidden.
    labels = [f"labelled=rooms=3,streets={count}" for count in (1, 2)]
    runs = planned(*compare("usss", "--vary", *labels))
    alone = {name: own for name, own in runs.items() if name.startswith("first/")}
    assert {name: own["labelled"] for name, own in alone.items()} == {
        "first/alone-rooms": "rooms=3",
        "first/alone-streets+rooms=3-streets=1": "streets=1",
        "first/alone-streets+rooms=3-streets=2": "streets=2",
    }
    for own in runs.values():
        if "supervised" in own:
            _, streets = own["supervised"].split(",")
            assert alone[streets.removeprefix("out/")]["labelled"] == "streets=" + own["labelled"][-1]
    assert len(runs) == 3 + 6 * 2
    # Seeds: each begins with a run of its own seed, also where one run that is trained first begins with another.
    (place / "own.toml").write_text(
        'vary = ["init=", "init={second}"]\n[needs]\nwhich = "shards"\n'
        '[[first]]\nname = "one"\nshards = "{which}"\nsettings = { optimizer = "sgd" }\n'
        '[[first]]\nname = "second"\nshards = "{which}"\nsettings = { init = "{one}" }\n'
    )
    words = compare("own.toml", "--with", "which=others", "--vary", "seed=1", "seed=2", "--vary", "init=+flip=0.3")
    runs = planned(*words)
    assert len(runs) == 2 + 2 + 3 * 2
    for seed in ("1", "2"):
        assert runs[f"first/one+seed={seed}"]["seed"] == seed
        assert runs[f"first/second+seed={seed}"]["init"] == f"out/first/one+seed={seed}"
        assert runs[f"second+seed={seed}"]["init"] == f"out/first/second+seed={seed}"
        assert runs[f"init=+flip=0.3+seed={seed}"]["init"] == ""
    # Images without labels are learned from beside others, not alone.
    Toy("photos", ("road", "sky", "car"), "image").write(place / "shards")
    runs = planned(*compare("usss"))
    assert [name for name in runs if name.startswith("first/")] == ["first/alone-rooms", "first/alone-streets"]
    words = ("compare", "usss", "--bank", "bank", "--eval-shards", "val", "--out", "out", "--vary", "shards=shards")
    refused = run(*words)
    assert refused.exit_code == 2 and "usss trains on --shards first, so shards can't vary" in refused.output


def test_names_and_files_that_are_wrong_are_refused(run: Any, place: Path) -> None:
    assert {"mdp", "table8", "usss"} <= set(names_of_comparisons())
    refused = run(*compare("usps", "--batch-size", 2))
    assert refused.exit_code == 2 and "no comparison is called 'usps'. Did you mean usss" in refused.output
    refused = run(*compare("usss", "--with", "run=first"))
    assert refused.exit_code == 2 and "usss needs no 'run'" in refused.output
    own = place / "own.toml"
    for text, said in (
        ("vary = [", "is not TOML"),
        ("", "nothing varies"),
        ('rows = ["method=ssiw"]', "unknown key 'rows'"),
        ('vary = ["pretrained={first}"]', "{first} is neither a need nor a run"),
        ('vary = ["method=ssiw"]\n[[first]]\nshards = "others"', "first: no name"),
    ):
        own.write_text(text)
        refused = run(*compare(str(own), "--batch-size", 2))
        assert refused.exit_code and said in refused.output and "Traceback" not in refused.output, refused.output
    refused = run(*compare("no.toml"))
    assert refused.exit_code and "no such file" in refused.output
