"""`eval --only` and `--leave-out`: some classes alone, against choosing among their vectors and forgetting the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from labelmerge.errors import UsageError
from labelmerge.evaluate.classes import names_in_words, names_of
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import LabelSpace
from labelmerge.methods.inference import segment
from labelmerge.methods.restore import load_trained

SPACES = (
    LabelSpace("streets", (0, 3, 7), ("road", "car, parked", "sky")),
    LabelSpace("parks", (0, 1, 300), ("grass", "sky", "tree")),
)


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """A run, and two sets of a few images; the masks of one are 16-bit."""
    bank = tools.bank([(*key, name, "") for space in SPACES for key, name in zip(space.keys, space.names, strict=True)])
    tools.run(tmp_path / "run", bank)
    bank.save(tmp_path / "bank")
    for space in SPACES:
        samples = []
        for number in range(3):
            image, mask = picture(space, number)
            samples.append((tools.png(image), tools.png(mask)))
        tools.split(tmp_path / f"shards/{space.name}/val", space, samples)
    return tmp_path


def picture(space: LabelSpace, number: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(number)
    image = np.kron(rng.integers(0, 256, (3, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    values = np.array([*space.indices, space.ignore_index], space.dtype)
    return image, values[rng.integers(0, 4, (24, 40))]


def measured(world: Path, **which: Any) -> dict[str, Any]:
    evaluate(world / "run", [world / "shards"], None, world / "r.json", **which)
    content: dict[str, Any] = json.loads((world / "r.json").read_text())
    return content


@pytest.mark.parametrize(
    ("which", "kept"),
    [
        ({"leave_out": ["SKY"]}, [("streets", (0, 3)), ("parks", (0, 300))]),
        ({"leave_out": ["parks:tree"]}, [("streets", (0, 3, 7)), ("parks", (0, 1))]),
        ({"only": ["road", "sky", "grass"]}, [("streets", (0, 7)), ("parks", (0, 1))]),
    ],
)
def test_the_figures_are_those_of_the_other_classes(
    world: Path, tools: Any, which: dict[str, list[str]], kept: list[tuple[str, tuple[int, ...]]]
) -> None:
    found = measured(world, **which)
    trained = load_trained(world / "run")
    from labelmerge.bank.bank import Bank

    bank = Bank.load(world / "bank")
    for name, indices in kept:
        space = next(space for space in SPACES if space.name == name)
        confusion = np.zeros((len(indices), len(indices)), np.int64)
        ignored = 0
        for number in range(3):
            image, mask = picture(space, number)
            seen = segment(trained.learner.model, image, bank.rows([(name, index) for index in indices]), tau=1)
            for row, index in enumerate(indices):
                confusion[row] += np.bincount(seen[mask == index], minlength=len(indices))
            ignored += int((~np.isin(mask, indices)).sum())
        with np.load(world / "r.confusion.npz") as matrices:
            np.testing.assert_array_equal(matrices[f"{name}-val"], confusion)
        (entry,) = [entry for entry in found["sets"] if entry["dataset"] == name]
        assert entry["ignored_pixels"] == ignored and [row["index"] for row in entry["classes"]] == list(indices)
    assert found["protocol"]["classes"] == which


def test_all_classes_are_as_before(world: Path) -> None:
    assert "classes" not in measured(world)["protocol"]


def test_a_value_of_no_class_is_no_class_left_out(world: Path, tools: Any) -> None:
    space = SPACES[0]
    samples = [[np.array(each) for each in picture(space, number)] for number in range(2)]
    samples[1][1][0, 0] = 5
    pictures = [(tools.png(image), tools.png(mask)) for image, mask in samples]
    tools.split(world / "odd" / space.name / "val", space, pictures)
    for left_out in ([], ["sky"]):
        evaluate(world / "run", [world / "odd"], None, world / "r.json", leave_out=left_out)
        (entry,) = json.loads((world / "r.json").read_text())["sets"]
        assert (entry["images"], entry["skipped"]) == (1, 1)
        assert entry["skipped_samples"][0]["reason"] == "mask values [5] are not classes of streets"


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ({"only": ["raod"]}, "no set has a class 'raod'. Did you mean road"),
        ({"leave_out": ["streets:tree"]}, "no set has a class 'streets:tree'"),
        ({"only": ["road", "sky"]}, "parks-val is left with 1 of its classes"),
        ({"only": ["road"], "leave_out": ["sky"]}, "not both at once"),
        ({"only": ["road"], "tasks": ["panoptic"]}, "some classes alone are measured by pixels"),
    ],
)
def test_what_cant_be_is_said(world: Path, which: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measured(world, **which)


def test_names_are_read_back() -> None:
    names = ("road", "car, parked", "parks:sky")
    assert names_of('road,  "car, parked" , parks:sky,') == names
    assert names_of('road\n"car, parked"\r\nparks:sky\n') == names
    for odd in (('"sky" above', "a"), ('the "b", or c',)):
        assert names_of(names_in_words(odd) or "") == odd
    for nothing in ("", " , ,"):
        with pytest.raises(UsageError, match="no class is named"):
            names_of(nothing)
    words = names_in_words(names)
    assert words is not None and names_of(words) == names and names_in_words(()) is None


def test_the_command_and_the_one_that_it_notes(world: Path, run: Callable[..., Result]) -> None:
    args = ("eval", "--checkpoint", world / "run", "--shards", world / "shards", "--out", world / "r.json")
    result = run(*args, "--leave-out", '"car, parked"')
    assert result.exit_code == 0, result.stderr
    content = json.loads((world / "r.json").read_text())
    assert "--leave-out '\"car, parked\"'" in content["reproduce"]
    assert [row["name"] for row in content["sets"][1]["classes"]] == ["road", "sky"]
