"""The example predictions: which images, what their pictures show, and how the report puts them side by side."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.colours import palette
from labelmerge.compare.report import HTML, report_runs
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.evaluate.examples import chosen
from labelmerge.labels import LabelSpace
from labelmerge.methods.inference import segment
from labelmerge.methods.restore import load_trained

from ..plot.browser import browser_tab

SPACE = LabelSpace("streets", (0, 3, 7), ("road", "car <i>", "sky"))
SHAPE = (24, 33)
LARGE = 2  # this image is larger than a picture of it


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """Six images, whose first rows are wrong and whose last ones have no label; the second can't be read."""
    bank = tools.bank([("streets", i, n, f"About {n}.") for i, n in zip(SPACE.indices, SPACE.names, strict=True)])
    bank.save(tmp_path / "bank")
    for name in ("run", "other"):
        tools.run(tmp_path / name, bank)
        (tmp_path / name / "config.toml").write_text('model = "tiny"\n')
    model = load_trained(tmp_path / "run").learner.model
    samples = []
    for number in range(6):
        rng = np.random.default_rng(number)
        image = np.kron(rng.integers(0, 256, (3, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)[: SHAPE[0], : SHAPE[1]]
        if number == LARGE:
            image = np.kron(image, np.ones((16, 16, 1), np.uint8))
        seen = segment(model, image, bank.rows(SPACE.keys), tau=1)
        mask = np.array(SPACE.indices, np.uint8)[seen]
        mask[:3] = np.array(SPACE.indices, np.uint8)[(seen[:3] + 1) % 3]
        mask[-4:] = 255
        samples.append((tools.png(image) if number != 1 else b"no picture", tools.png(mask)))
    tools.split(tmp_path / "shards/streets/val", SPACE, samples)
    return tmp_path


def measure(world: Path, run: str = "run", **how: Any) -> dict[str, Any]:
    evaluate(world / run, [world / "shards"], None, world / run / "results.json", **how)
    content: dict[str, Any] = json.loads((world / run / "results.json").read_text())
    return content


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_which_images_follows_from_their_number_alone() -> None:
    assert chosen(range(12), 4) == [1, 4, 7, 10]
    assert chosen(range(3), 4) == [0, 1, 2]
    assert chosen(range(7), 1) == [3]
    assert chosen(range(5), 0) == [] == chosen([], 4)


def test_pictures_show_image_truth_and_prediction(world: Path) -> None:
    (measured,) = measure(world, examples=3)["sets"]
    shown = measured["examples"]
    # Of three parts of six images the middle ones are 1, 3 and 5; the first of them can't be read.
    assert [entry["number"] for entry in shown] == [3, 5] and shown[0]["key"] == "streets-val-000000003"
    assert shown[0]["pixel_accuracy"] == pytest.approx(1 - 3 / (SHAPE[0] - 4))
    folder = world / "run/results.examples"
    files = [folder / f"streets-val-000003.{part}.webp" for part in ("image", "truth", "prediction")]
    assert len(list(folder.iterdir())) == 6
    assert shown[0]["sha256"] == hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    colours = palette(SPACE.names)
    truth, prediction = pixels(files[1]), pixels(files[2])
    assert (truth[-4:] == 96).all() and truth.shape == (*SHAPE, 3)
    same = (truth == prediction).all(axis=-1)
    assert not same[:3].any() and same[3:-4].all()
    names = [SPACE.names[k] for k in range(3) if ((prediction == colours[k]) | (truth == colours[k])).all(-1).any()]
    assert sorted(shown[0]["classes"]) == sorted(names)


def test_large_images_are_shown_small(world: Path) -> None:
    (measured,) = measure(world, examples=6)["sets"]
    assert LARGE in [entry["number"] for entry in measured["examples"]]
    truth, prediction = (
        pixels(world / f"run/results.examples/streets-val-{LARGE:06d}.{part}.webp") for part in ("truth", "prediction")
    )
    assert max(truth.shape) == 320 and truth.shape == prediction.shape
    colours = {tuple(rgb) for rgb in palette(SPACE.names).tolist()} | {(96, 96, 96)}
    assert {tuple(rgb) for rgb in truth.reshape(-1, 3).tolist()} <= colours, "no colour between two classes"


def test_a_second_measurement_leaves_no_old_picture(world: Path) -> None:
    measure(world, examples=6)
    mine = world / "run/results.examples/notes.txt"
    mine.write_text("mine")
    measure(world, examples=1)
    names = {path.name for path in mine.parent.iterdir()}
    assert names == {f"streets-val-000003.{part}.webp" for part in ("image", "truth", "prediction")} | {"notes.txt"}
    mine.unlink()
    assert measure(world, examples=0)["sets"][0]["examples"] == []
    assert not mine.parent.exists()


def test_the_worst_images_are_kept_on_request_and_shown_for_each_run(world: Path) -> None:
    content = measure(world, examples=1, worst=3)
    (entry,) = content["sets"]
    with (world / "run/results.images.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [one["key"] for one in entry["worst"]] == [row["key"] for row in table[:3]]
    assert [one["pixel_accuracy"] for one in entry["worst"]] == pytest.approx(
        [float(row["pixel_accuracy"]) for row in table[:3]], abs=5e-5
    )
    for one in entry["worst"]:
        parts = ("image", "truth", "prediction")
        data = [(world / f"run/results.examples/streets-val-{one['number']:06d}.{p}.webp").read_bytes() for p in parts]
        assert hashlib.sha256(b"".join(data)).hexdigest() == one["sha256"]
    measure(world, "other")
    page = page_of(world, "run", "other")
    assert page.count("the worst images of run</h2>") == 1 and "the worst images of other" not in page
    shown = page[page.index("the worst images of run") :]
    notes = re.findall(r"run<span>([0-9.]+) % right", shown)
    assert notes == [f"{100 * one['pixel_accuracy']:.1f}" for one in entry["worst"]]
    assert "worst" not in measure(world)["sets"][0]


def page_of(world: Path, *runs: str) -> str:
    report_runs([world / run for run in runs], world / "report")
    return (world / "report" / HTML).read_text()


def test_the_report_puts_them_side_by_side(world: Path) -> None:
    for run in ("run", "other"):
        measure(world, run)
    page = page_of(world, "run", "other")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    # Samples 0, 2, 3, 5.
    assert len(captions) == 4 * 4 and captions[:2] == ["image", "truth"]
    assert captions[2].startswith("run<span>") and captions[3].startswith("other<span>85.0 % right")
    uris = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', page)
    assert base64.b64decode(uris[2]) == (world / "run/results.examples/streets-val-000000.prediction.webp").read_bytes()
    assert "chosen by their place and not by their result" in page
    assert "car &lt;i&gt;</li>" in page


def test_pictures_of_other_lists_of_classes_have_legends_of_their_own(world: Path) -> None:
    """A name's colour depends on the names before it in the list."""
    measure(world)
    measure(world, "other", leave_out=[SPACE.names[0]])
    shown = report_runs([world / "run", world / "other"], world / "report").examples
    assert [each.name for each in shown] == ["streets-val: examples of run", "streets-val: examples of other"]
    for each, names in zip(shown, (SPACE.names, SPACE.names[1:]), strict=True):
        colours = {name: "#" + bytes(colour).hex() for name, colour in zip(names, palette(names), strict=True)}
        assert each.images and all(
            label.colour == colours[label.name] for image in each.images for label in image.labels
        )


def test_pictures_of_other_results_are_not_shown(world: Path) -> None:
    measure(world)
    folder = world / "run/results.examples"
    kept = folder / "kept"
    shutil.copytree(folder, kept)
    picture = folder / "streets-val-000000.prediction.webp"
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "webp")
    picture.write_bytes(out.getvalue())
    assert page_of(world, "run").count("<figure>") == 3 * 3
    for path in folder.glob("*.webp"):
        path.write_bytes(b"")
    assert "<figure>" not in page_of(world, "run")
    shutil.rmtree(folder)
    assert "<figure>" not in page_of(world, "run")


def test_names_in_results_lead_nowhere_else(world: Path) -> None:
    content = measure(world)
    content["sets"][0]["dataset"] = "../../run/results.examples/streets"
    (world / "run/results.json").write_text(json.dumps(content))
    assert "<figure>" not in page_of(world, "run")


def test_a_hash_makes_no_picture_of_a_file_that_is_none(world: Path) -> None:
    content = measure(world)
    for path in (world / "run/results.examples").iterdir():
        path.write_bytes(b"RIFF")
    for entry in content["sets"][0]["examples"]:
        entry["sha256"] = hashlib.sha256(b"RIFF" * 3).hexdigest()
    (world / "run/results.json").write_text(json.dumps(content))
    assert "<figure>" not in page_of(world, "run")


def test_they_fit_a_phone_and_a_desktop(world: Path) -> None:
    for run in ("run", "other"):
        measure(world, run)
    page_of(world, "run", "other")
    tops = "[...document.querySelector('.example').children].map(each => Math.round(each.getBoundingClientRect().top))"
    with browser_tab(world / "profile") as tab:
        for width, rows in ((1400, 1), (400, 2)):
            tab.send(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
            )  # fmt: skip
            tab.send("Page.navigate", url=(world / "report" / HTML).as_uri())
            tab.until("document.readyState === 'complete' && document.querySelector('.example') !== null")
            assert len(set(tab.run(tops))) == rows
            assert tab.run("document.documentElement.scrollWidth") <= width
        assert not tab.errors


def test_command(world: Path, run: Callable[..., Any]) -> None:
    args = ("--checkpoint", world / "run", "--shards", world / "shards", "--out", world / "run/results.json")
    shown = run("eval", *args, "--examples", 2)
    assert shown.exit_code == 0, shown.output
    line = shown.stdout.splitlines()[-1]
    assert line == f"1 example in results.examples/: `labelmerge report {world / 'run'} --out DIR` shows them"
    more = run("eval", *args, "--examples", 2, "--worst", 2).stdout.splitlines()[-1]
    assert more.startswith("1 example and 2 of the worst images in results.examples/")
    assert "example" not in run("eval", *args, "--examples", 0).stdout
