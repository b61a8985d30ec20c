"""`labelmerge predict` with runs that give depths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views
from labelmerge.predict.depths import stored_depth

from ..evaluate.conftest import make_bank
from ..evaluate.test_eval_depth import depth_run

LABELS = [("streets", place, name, "") for place, name in enumerate(("road", "sky", "car"))]


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    bank = make_bank(LABELS, dim=16)
    for labels in ("none", "masks"):
        depth_run(tmp_path / labels, bank, labels)
    tools.run(tmp_path / "labeller", bank, dim=16)
    tools.run(tmp_path / "stranger", make_bank(LABELS, dim=16, weights="1" * 64), dim=16)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_depths_as_values_and_as_a_picture(world: Path, run: Callable[..., Any]) -> None:
    words = ["--checkpoint", world / "none", "--out", world / "out", "--short-edge", 0, "--device", "cpu"]
    done = run("predict", world / "photo.png", world / "broken.png", *words)
    assert done.exit_code == 1 and "Wrote photo_depth.png with pictures" in done.output, done.output
    assert "1 of 2 images failed" in done.output + getattr(done, "stderr", "")
    assert sorted(path.name for path in (world / "out").iterdir()) == [
        "photo_depth.jpg", "photo_depth.json", "photo_depth.png",
    ]  # fmt: skip
    values = np.asarray(Image.open(world / "out/photo_depth.png"))
    image = np.asarray(Image.open(world / "photo.png"))
    from labelmerge.methods.predictor import LabelList

    zeros = LabelList(("a",), ("a",), (None,), np.zeros((1, 16), np.float32))
    depth = load_trained(world / "none").predictor(zeros, Views(short_edge=0)).depth(image)
    np.testing.assert_array_equal(values, stored_depth(depth))
    assert (values.min(), values.max()) == (1, 65535)
    about = json.loads((world / "out/photo_depth.json").read_text())
    assert (about["height"], about["width"], about["depth"]) == (20, 28, "photo_depth.png")
    light = np.asarray(Image.open(world / "out/photo_depth.jpg").convert("L")).astype(float)
    assert np.corrcoef(light.ravel(), values.ravel())[0, 1] < -0.9  # near is light


def test_labels_come_from_another_run(world: Path, run: Callable[..., Any]) -> None:
    words = ["--checkpoint", world / "masks", "--out", world / "out", "--device", "cpu", "--short-edge", 0]
    done = run("predict", world / "photo.png", *words, "--labeller", world / "labeller")
    assert done.exit_code == 0 and (world / "out/photo_depth.png").is_file(), done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "masks"], "takes the labels of pixels as its second input. Give a run that labels them"),
        (["--checkpoint", "none", "--labeller", "labeller"], "takes no labels. Leave --labeller out"),
        (["--checkpoint", "masks", "--labeller", "none"], "gives depths, and no labels. Give another --labeller"),
        (["--checkpoint", "masks", "--labeller", "stranger"], "of another encoder than those of the run of depths"),
        (["--checkpoint", "none", "--labels", "road, sky"], "gives depths, and no labels. Leave --labels out"),
        (["--checkpoint", "none", "--coco"], "the run gives depths, and --coco is of labels"),
        (["--checkpoint", "none", "--window", "16"], "depths of windows don't fit together"),
        (["--checkpoint", "labeller", "--labels", "road", "--labeller", "labeller"], "--labeller is for runs"),
    ],
)
def test_what_does_not_fit_is_one_line(words: list[str], message: str, world: Path, run: Callable[..., Any]) -> None:
    runs = ("none", "masks", "labeller", "stranger")
    given = [world / word if word in runs else word for word in words]
    done = run("predict", world / "photo.png", *given, "--out", world / "out", "--device", "cpu")
    assert done.exit_code != 0 and message in done.output + getattr(done, "stderr", ""), done.output
    assert not list((world / "out").glob("*")) if (world / "out").exists() else True


def test_depths_that_are_the_same_everywhere() -> None:
    assert (stored_depth(np.full((2, 3), 4.0, np.float32)) == 1).all()
