"""`predict` and `labelmerge predict` on images of every kind that people have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.colours import palette
from labelmerge.errors import CheckpointError, SampleError, UsageError
from labelmerge.methods.inference import segment
from labelmerge.methods.restore import load_trained
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.model.views import Views
from labelmerge.predict.predict import _outputs, places_of, predict, read_photo
from labelmerge.predict.queries import LabelQuery

NAMES = ["road", "sky", "deer"]
QUERIES = [LabelQuery(name) for name in NAMES]


def photo(path: Path, seed: int = 0, **options: Any) -> npt.NDArray[np.uint8]:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def trained(tmp_path: Path, tools: Any) -> Path:
    folder: Path = tools.run(tmp_path / "run", tools.bank([("set", i, name, "") for i, name in enumerate(NAMES)]))
    return folder


def test_outputs(trained: Path, tmp_path: Path) -> None:
    pixels = photo(tmp_path / "in/a.png")
    done = predict([tmp_path / "in/a.png"], trained, QUERIES, tmp_path / "out")
    model = load_trained(trained).learner.model
    bank_folder = load_checkpoint(trained).bank_folder
    assert bank_folder is not None
    bank = Bank.load(bank_folder)
    expected = segment(model, pixels, bank.rows([("set", i) for i in range(3)]), tau=1)
    assert (tmp_path / "out/a.png").read_bytes()[24] == 8  # bits per pixel
    with Image.open(tmp_path / "out/a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), expected)
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), palette(NAMES)[expected])
    about = json.loads((tmp_path / "out/a.json").read_text())
    assert [(row["id"], row["name"], row["source"]) for row in about["labels"]] == [
        (0, "road", "set:0"), (1, "sky", "set:1"), (2, "deer", "set:2"),
    ]  # fmt: skip
    assert [row["pixels"] for row in about["labels"]] == np.bincount(expected.ravel(), minlength=3).tolist()
    assert (about["height"], about["width"], about["mask"]) == (20, 30, "a.png")
    with Image.open(tmp_path / "out/a_overlay.jpg") as overlay:
        assert overlay.height > 20
    assert not done.failed and [entry.mask for entry in done.written] == [tmp_path / "out/a.png"]


def test_same_stems_and_bad_images(trained: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    for number, name in enumerate(("one/a.png", "two/A.jpg", "three/a.png", "three/a-2.png")):
        photo(tmp_path / name, number)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "one/a.png").read_bytes()[:300])
    images = [
        *("one/a.png", "bad.jpg", "two/A.jpg", "one/a.png"),
        *("three/a.png", "three/a-2.png", "cut.png", "none.png", "run"),
    ]
    paths = [tmp_path / name for name in images]
    result = run("predict", *paths, "--checkpoint", trained, "--labels", "road, deer", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "Wrote a.png, A-2.png, a-3.png and 1 more with labels and overlays" in result.stdout
    assert "4 of 8 images failed" in result.stderr and "bad.jpg: can't be read as an image" in result.stderr
    masks = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert masks == ["A-2.png", "a-2-2.png", "a-3.png", "a.png"]
    assert json.loads((tmp_path / "out/a-3.json").read_text())["image"] == str(tmp_path / "three/a.png")


def test_command_says_json(trained: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("name,description\nsky,\n")
    args = ("predict", tmp_path / "a.png", "--checkpoint", trained, "--out", tmp_path / "out")
    result = run(*args, "--labels", "road", "--labels-file", tmp_path / "labels.csv", "--json", "--flip")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [label["name"] for label in data["labels"]] == ["road", "sky"]
    assert data["written"][0]["mask"] == str(tmp_path / "out/a.png")
    result = run(*args, "--labels", "")
    assert result.exit_code == 2 and "no labels" in result.stderr


def test_an_input_is_never_replaced(trained: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UsageError, match="would replace the image"):
        predict([tmp_path / "a.png"], trained, QUERIES, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_the_coco_file_is_no_images_output(trained: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("one/coco.png", "two/coco.png", "two/b.png")):
        photo(tmp_path / name, number)
    images = [tmp_path / "one", tmp_path / "two"]
    done = predict(images, trained, QUERIES, tmp_path / "out", coco=True)
    assert [entry.labels.name for entry in done.written] == ["coco-2.json", "b.json", "coco-3.json"]
    listed = json.loads((tmp_path / "out/coco.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == ["one/coco.png", "b.png", "two/coco.png"]
    for entry in done.written:
        assert json.loads(entry.labels.read_text())["image"] == str(entry.image)
    plain = predict(images, trained, QUERIES, tmp_path / "plain")
    assert plain.written[0].labels.name == "coco.json"


def test_many_labels_make_a_16_bit_mask(tmp_path: Path, tools: Any) -> None:
    bank = tools.bank([("set", i, f"label {i}", "") for i in range(300)])
    photo(tmp_path / "a.png")
    predict([tmp_path / "a.png"], tools.run(tmp_path / "run", bank), [LabelQuery("set:*")], tmp_path / "out")
    with Image.open(tmp_path / "out/a.png") as mask:
        assert mask.mode.startswith("I")
        ids = np.unique(np.asarray(mask))
    about = json.loads((tmp_path / "out/a.json").read_text())["labels"]
    assert len(about) == 300 and ids.max() > 255
    assert [row["id"] for row in about if row["pixels"]] == ids.tolist()


def test_photos_are_turned_as_viewers_do(trained: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: turn a quarter clockwise
    pixels = photo(tmp_path / "a.png", exif=exif)
    shown, orientation = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(shown, np.rot90(pixels, -1))
    assert orientation == 6
    predict([tmp_path / "a.png"], trained, QUERIES, tmp_path / "out")
    with Image.open(tmp_path / "out/a.png") as mask:
        assert mask.size == (20, 30)
    assert json.loads((tmp_path / "out/a.json").read_text())["exif_orientation"] == 6


def test_every_kind_of_image(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    kinds = {
        "L.png": Image.fromarray(grey),
        "I16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "RGBA.png": Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 9)])),
        "P.gif": Image.fromarray(grey),
        "L.webp": Image.fromarray(grey).convert("RGB"),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, lossless=True)  # a word that only WebP listens to
        shown, orientation = read_photo(tmp_path / name)
        np.testing.assert_array_equal(shown, np.dstack([grey, grey, grey]), err_msg=name)
        assert orientation == 1
    for name in ("1.tif", "CMYK.jpg"):
        Image.new(name.partition(".")[0], (4, 4)).save(tmp_path / name)
        assert read_photo(tmp_path / name)[0].shape == (4, 4, 3)
    with pytest.raises(SampleError, match="no such file"):
        read_photo(tmp_path / "none.jpg")


def test_large_photos_have_overlays_of_a_viewable_size(trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 100)).save(tmp_path / "wide.png")
    predict([tmp_path / "wide.png"], trained, QUERIES, tmp_path / "out", views=Views(short_edge=20))
    with Image.open(tmp_path / "out/wide.png") as mask, Image.open(tmp_path / "out/wide_overlay.jpg") as overlay:
        assert mask.size == (3000, 100) and overlay.width == 2000


def test_odd_label_lists(trained: Path, tmp_path: Path, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    photo(tmp_path / "a.png")
    predict([tmp_path / "a.png"], trained, [LabelQuery("sky")], tmp_path / "out")
    assert "every pixel gets it" in caplog.text
    predict([tmp_path / "a.png"], trained, [*QUERIES, LabelQuery("set:sky")], tmp_path / "out")
    assert "'set:sky' means the same as 'sky'" in caplog.text
    assert [label.key for label in predict([tmp_path / "a.png"], trained, None, tmp_path / "out").labels] == [
        ("set", 0), ("set", 1), ("set", 2),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no labels"):
        predict([tmp_path / "a.png"], trained, [], tmp_path / "out")
    with pytest.raises(CheckpointError, match="carries no bank"):
        predict([tmp_path / "a.png"], tools.run(tmp_path / "bare", None), QUERIES, tmp_path / "out")


def test_labels_of_datasets_have_the_runs_columns(
    tmp_path: Path, tools: Any, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bank = tools.bank([("a", 0, "walker", ""), ("a", 1, "rider", ""), ("b", 0, "people", ""), ("b", 1, "sky", "")])
    rows = ("a,0,walker,walker", "a,1,rider,rider", "b,0,people,walker;rider", "b,1,sky,sky")
    meta = {"columns": ["walker", "rider", "sky"], "column_labels": [["a:0", "b:0"], ["a:1", "b:0"], ["b:1"]]}
    trained = tools.run(
        tmp_path / "run", bank, config={"merge": "concepts"}, meta={**meta, "datasets": ["a", "b"]},
        taxonomy="\n".join(["dataset,index,name,concepts", *rows]),
    )  # fmt: skip
    pixels = photo(tmp_path / "a.png")
    model = load_trained(trained).learner.model
    queries = [LabelQuery("sky"), LabelQuery("people")]
    predict([tmp_path / "a.png"], trained, queries, tmp_path / "out")
    best = segment(model, pixels, bank.rows([("b", 1), ("a", 0), ("a", 1)]), tau=1).clip(max=1)
    with Image.open(tmp_path / "out/a.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), best)
    about = json.loads((tmp_path / "out/a.json").read_text())
    assert about["by"] == "concepts" and [row["columns"] for row in about["labels"]] == [["sky"], ["walker", "rider"]]
    predict([tmp_path / "a.png"], trained, [*queries, LabelQuery("walker"), LabelQuery("rider")], tmp_path / "out")
    assert "'people' is covered by narrower labels of the list" in caplog.text
    done = run("predict", tmp_path / "a.png", "--checkpoint", trained, "--out", tmp_path / "none")
    assert done.exit_code == 2 and not (tmp_path / "none").exists()
    assert 'trained on 2 datasets. Give --labels "road, sky", or --labels "a:*" for all labels of one' in done.stderr
    done = run("predict", tmp_path / "a.png", "--checkpoint", trained, "--labels", "sky, people", "--by", "text",
               "--out", tmp_path / "text")  # fmt: skip
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "text/a.png") as mask:
        own = segment(model, pixels, bank.rows([("b", 1), ("b", 0)]), tau=1)
        np.testing.assert_array_equal(np.asarray(mask), own)


def test_no_output_of_one_image_replaces_that_of_another() -> None:
    images = [Path(f"shots/{name}") for name in ("a.jpg", "a_instances.jpg", "b_instances.jpg", "b.jpg", "A.png")]
    places = places_of(images, Path("out"), _outputs)
    assert list(places.values()) == ["a", "a_instances-2", "b_instances", "b-2", "A-2"]
    outputs = [str(path).lower() for stem in places.values() for path in _outputs(Path("out"), stem)]
    assert len(set(outputs)) == len(outputs)
