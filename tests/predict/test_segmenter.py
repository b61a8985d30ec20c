"""`labelmerge.open_run(…).segment`: what the command writes, for images and labels as a notebook has them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import labelmerge
from labelmerge.model.views import Views
from labelmerge.predict.predict import predict
from labelmerge.predict.queries import parse_labels


@pytest.fixture
def place(tmp_path: Path, tools: Any) -> Path:
    """A run, and a photograph that viewers turn."""
    tools.run(tmp_path / "run", tools.bank([("set", i, name, "") for i, name in enumerate(("road", "sky", "deer"))]))
    patches = np.random.default_rng(0).integers(0, 256, (3, 5, 3))
    pixels = np.kron(patches, np.ones((8, 8, 1))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    return tmp_path


def test_files_pictures_and_arrays_get_the_labels_that_the_command_writes(place: Path) -> None:
    predict([place / "a.png"], place / "run", parse_labels("sky, road, deer"), place / "out")
    with Image.open(place / "out/a.png") as mask:
        expected = np.asarray(mask)
    segmenter = labelmerge.open_run(place / "run", device="cpu")
    found = segmenter.segment(str(place / "a.png"), ["sky", "road", "deer"])
    assert found.image.shape == (40, 24, 3) and len(np.unique(expected)) > 1
    for image in (place / "a.png", found.image, Image.fromarray(found.image)):
        for labels in ("sky, road, deer", ["sky", "road", "deer"], {"sky": "", "road": "", "deer": ""}):
            np.testing.assert_array_equal(segmenter.segment(image, labels).classes, expected)
    counts = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert found.shares == {name: counts[k] for k, name in enumerate(found.names)}
    assert list(found.shares.values()) == sorted(counts, reverse=True)
    np.testing.assert_array_equal(found.mask("road"), expected == 1)
    with pytest.raises(KeyError, match="'cow' was not asked for: sky, road, deer"):
        found.mask("cow")
    assert found._repr_jpeg_() == (place / "out/a_overlay.jpg").read_bytes()
    assert Image.open(io.BytesIO(found.overlay())).width >= 20


def test_other_labels_and_views_are_asked_anew(place: Path) -> None:
    segmenter = labelmerge.open_run(place / "run")
    assert segmenter.labels == ("set:road", "set:sky", "set:deer")
    whole = segmenter.segment(place / "a.png", "set:*")
    assert segmenter.segment(place / "a.png").names == whole.names
    two = segmenter.segment(place / "a.png", "sky, road")
    assert whole.names == ("road", "sky", "deer") and two.names == ("sky", "road")
    larger = segmenter.segment(place / "a.png", "set:*", short_edge=48, flip=True)
    predict([place / "a.png"], place / "run", parse_labels("set:*"), place / "out", views=Views(48, flip=True))
    with Image.open(place / "out/a.png") as mask:
        np.testing.assert_array_equal(larger.classes, np.asarray(mask))
    assert (whole.classes != larger.classes).any()


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (np.zeros((3, 4, 5)), "sky", r"must be uint8 \[height, width, 3\], and this is float64 \[3, 4, 5\]"),
        ("none.png", "sky", "none.png: no such file"),
        (np.zeros((4, 5, 3), np.uint8), [], "no labels to choose from"),
        (np.zeros((4, 5, 3), np.uint8), "set:cow", "set has no label 'cow'"),
    ],
)
def test_what_cant_be_used_is_said_in_a_line(place: Path, image: Any, labels: Any, message: str) -> None:
    with pytest.raises(labelmerge.LabelmergeError, match=message):
        labelmerge.open_run(place / "run").segment(image, labels)


def test_importing_loads_nothing_and_every_name_is_there() -> None:
    code = "import labelmerge, sys; print(sorted({'torch', 'numpy'} & set(sys.modules))); help(labelmerge)"
    shown = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("[]\n")
    for name in labelmerge.__all__:
        assert name in shown and getattr(labelmerge, name)
    with pytest.raises(AttributeError, match="no attribute 'segment_image'"):
        labelmerge.segment_image  # noqa: B018
