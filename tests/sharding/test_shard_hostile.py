"""Files and moments that nobody wishes for: pipes, files without end, full disks, Ctrl-C while processes start."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from click.testing import Result
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import LayoutError, OutputError, SampleError, ShardError
from labelmerge.sharding import plan
from labelmerge.sharding.pictures.images import MAX_FILE_BYTES, read_file
from labelmerge.sharding.shard import check, shard

from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

T = TypeVar("T")


def huge(path: Path, size: int = 60 << 30) -> None:
    """A file of many bytes, of which the disk has none."""
    with path.open("wb") as stream:
        try:
            stream.truncate(size)
        except OSError as error:
            pytest.skip(f"no sparse files here ({error.strerror})")


def test_files_that_would_fill_memory_are_skipped(own: Own) -> None:
    own.pairs(3)
    huge(own.root / "images/train/001.jpg")
    huge(own.root / "masks/train/002.png")
    report = check(own.recipe, own.root, "train")
    reason = f"has {60 << 30} bytes, more than the {MAX_FILE_BYTES} that are read"
    assert report.skipped == (
        {"path": "images/train/001.jpg", "reason": reason},
        {"path": "images/train/002.jpg", "reason": f"masks/train/002.png: {reason}"},
    )


def test_a_huge_polygon_file_is_not_parsed(own: Own) -> None:
    own.write_recipe(
        'name = "my_streets"\nannotation_type = "mask"\nreader = "polygons"\ndescriptions = "my_streets.csv"\n'
        '[layout]\nimages = "images/{split}/*.jpg"\npolygons = "polygons/{split}/{stem}.json"\n'
    )
    own.pairs(1)
    (own.root / "polygons/train").mkdir(parents=True)
    huge(own.root / "polygons/train/000.json", 100 << 20)
    with pytest.raises(LayoutError, match="has more than 67108864 bytes"):
        check(own.recipe, own.root, "train")


def test_pipes_are_not_waited_for(own: Own) -> None:
    pipe = own.root / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(SampleError, match="is not a plain file"):
        read_file(pipe)
    (own.root / "annotations/panoptic_val2017").mkdir(parents=True)
    (own.root / "val2017").mkdir()
    os.mkfifo(own.root / "annotations/panoptic_val2017.json")
    with pytest.raises(LayoutError, match="no panoptic JSON"):
        check(load_recipe("coco_panoptic"), own.root, "val")


def test_no_space_for_the_first_byte_of_the_list(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.pairs(1)

    class Full(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql.startswith("CREATE"):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *parameters)

    def database(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, factory=Full)

    monkeypatch.setattr(plan, "_database", database)
    with pytest.raises(OutputError, match="can't keep the list of images"):
        shard(own.recipe, own.root, "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_ctrl_c_while_workers_start_is_one_line(own: Own, tmp_path: Path, wait: float) -> None:
    own.pairs(6)
    words = ["shard", own.recipe_file, "--root", own.root, "--split", "train", "--out", tmp_path / "a"]
    words += ["--samples-per-shard", 1, "--workers", 3]
    command = [sys.executable, "-m", "labelmerge.cli", *map(str, words)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which shells ignore in the background
    )
    begun = tmp_path / "a/my_streets/train/.unfinished/run.json"
    deadline = time.monotonic() + 60
    while not begun.is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait)  # the workers are being started now
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "Traceback" not in said and said.endswith("Aborted!\n")
    report = shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=1)
    assert report.written == 6


LISTED = """
name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/train/*.jpg"
masks = "masks/train/{stem}.png"
list = "{split}.txt"
[ids]
ignore = [255]
"""


def test_a_list_that_begins_with_a_byte_order_mark(own: Own) -> None:
    own.write_recipe(LISTED)
    own.pairs(2)
    (own.root / "train.txt").write_bytes("\ufeff000\r\n001\r\n".encode())
    report = check(own.recipe, own.root, "train")
    assert (report.written, report.skipped) == (2, ())


def test_an_empty_list(own: Own) -> None:
    own.write_recipe(LISTED)
    own.pairs(1)
    (own.root / "train.txt").write_text("\n\n")
    with pytest.raises(LayoutError, match=r"train\.txt: is a list of images, but names none"):
        check(own.recipe, own.root, "train")


def test_names_do_not_command_the_terminal(own: Own, run: Callable[..., Result]) -> None:
    own.write_recipe(LISTED)
    own.pairs(1)
    (own.root / "train.txt").write_text("000\n\x1b[31mred\x07\n")
    result = run("shard", own.recipe_file, "--root", own.root, "--split", "train", "--check")
    assert "skipped \\x1b[31mred\\x07: named in train.txt" in result.stdout
    assert result.stdout.replace("\n", "").isprintable()


def test_a_folder_of_something_else_is_said_once(own: Own, run: Callable[..., Result]) -> None:
    result = run("shard", "voc", "--root", own.root, "--check")
    assert result.exit_code == 1
    assert result.stderr.count("not laid out as voc") == 1 and result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    "folder",
    ["masks/train/0", "masks/train", "train-masks-0", "train-masks/0", "train-masks", "masks/0", "masks"],
)
def test_wherever_open_images_masks_were_unpacked(own: Own, folder: str) -> None:
    own.image("train/000a045a0715d64d.jpg")
    (own.root / folder).mkdir(parents=True)
    name = "000a045a0715d64d_m0cup_aaaaaaaa.png"
    Image.new("1", (16, 12), 1).save(own.root / folder / name)
    (own.root / "class-descriptions-boxable.csv").write_text("/m/0cup,Coffee cup\n")
    (own.root / "classes-segmentation.txt").write_bytes("\ufeff/m/0cup\n".encode())
    (own.root / "train-annotations-object-segmentation.csv").write_text(
        "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
        f"{name},000a045a0715d64d,/m/0cup,aaaaaaaa,0,1,0,1,,\n"
    )
    mask = (found := listed(load_recipe("openimages"), own.root, "train")).read(found.item).mask
    assert mask is not None and mask.tolist() == [[found.source.space.indices[0]] * 16] * 12


@pytest.mark.parametrize("folder", ["images", "masks", "."])
def test_a_disk_that_goes_away_ends_the_run(own: Own, tmp_path: Path, folder: str) -> None:
    own.pairs(6)
    shard(own.recipe, own.root, "train", tmp_path / "b", samples_per_shard=2)
    away = tmp_path / "away"

    def pulled_out(things: Iterable[T], what: str, total: int | None = None, /) -> Iterator[T]:
        for step, thing in enumerate(things):
            if step == 3:
                os.rename(own.root / folder, away)
            yield thing

    with pytest.raises(LayoutError, match="was there at the start, and is gone"):
        shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=2, track=pulled_out)
    os.rename(away, own.root / folder)
    report = shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=2)
    assert (report.kept, report.written, report.skipped) == (2, 6, ())
    for path in (tmp_path / "b").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()


def test_a_file_that_goes_away_is_skipped(own: Own, tmp_path: Path) -> None:
    own.pairs(4)

    def deleted(things: Iterable[T], what: str, total: int | None = None, /) -> Iterator[T]:
        for step, thing in enumerate(things):
            if step == 1:
                (own.root / "masks/train/002.png").unlink()
            yield thing

    report = shard(own.recipe, own.root, "train", tmp_path, track=deleted)
    reason = "masks/train/002.png: can't be read (No such file or directory)"
    assert (report.written, report.skipped) == (3, ({"path": "images/train/002.jpg", "reason": reason},))


def test_a_finished_run_with_too_many_skips_is_not_good_enough_later(own: Own, tmp_path: Path) -> None:
    own.pairs(2)
    (own.root / "masks/train/001.png").unlink()
    shard(own.recipe, own.root, "train", tmp_path)
    with pytest.raises(ShardError, match="1 of 2 images can't be used, more than --max-skip-ratio allows"):
        shard(own.recipe, own.root, "train", tmp_path, max_skip_ratio=0.1)
    assert shard(own.recipe, own.root, "train", tmp_path, max_skip_ratio=0.5).kept == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_no_space_for_what_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "labelmerge.cli", "ls"], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        1,
        b"Error: standard output: can't be written (No space left on device)\n",
    )
