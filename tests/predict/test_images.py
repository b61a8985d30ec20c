"""Which images `predict` is asked for: files, folders, patterns, addresses; and the COCO file of what it finds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pycocotools.coco import COCO

from labelmerge.errors import UsageError
from labelmerge.predict.coco import CocoFile
from labelmerge.predict.images import find_images, refuse_absent, told_apart

from ..loopback import QuietServer, served


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    (folder / "below").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.jpg"):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def server(shots: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with served(QuietServer(("127.0.0.1", 0), partial(Quiet, directory=str(shots)))) as url:
        yield url


def test_folders_patterns_and_files_are_found_each_once(shots: Path, tmp_path: Path) -> None:
    found = find_images([shots, shots / "b.jpg", f"{shots}/**/*.jpg", "gone.jpg"], tmp_path)
    assert [path.relative_to(shots).as_posix() for path in found.files] == ["a.PNG", "b.jpg", "below/c.jpg"]
    assert found.failed == (("gone.jpg", "no such file"),)


def test_an_image_of_the_web_is_fetched(server: str, tmp_path: Path) -> None:
    found = find_images([f"{server}/b.jpg?size=1", f"{server}/gone.jpg"], tmp_path / "scratch")
    (path,) = found.files
    assert (path.name, path.read_bytes(), found.origins[path]) == ("b.jpg", b"x", f"{server}/b.jpg?size=1")
    assert found.failed == ((f"{server}/gone.jpg", "the server answers 404"),)


@pytest.mark.parametrize("word", ["gone.jpg", "*.nothing", "http://127.0.0.1:1/a.jpg", "below"])
def test_nothing_there_is_said_before_anything_is_loaded(
    word: str, shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shots)
    (shots / "below/c.jpg").unlink()
    with pytest.raises(UsageError, match="no such file|no file|can't be fetched|no images"):
        find_images([word], tmp_path)


def test_images_that_are_not_there_are_refused_without_torch(shots: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from labelmerge.cli.main import cli; from labelmerge.errors import UsageError\n"
        "try: cli(sys.argv[1:], standalone_mode=False)\n"
        "except UsageError as error: assert 'torch' not in sys.modules; sys.exit(str(error))"
    )
    words = [
        "predict",
        "gone.jpg",
        "no*.jpg",
        "--checkpoint",
        "run",
        "--labels",
        "road",
        "--out",
        str(tmp_path / "masks"),
    ]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=shots)
    assert "gone.jpg: no such file, and 1 other likewise. Give image files" in done.stderr, done.stderr


def test_a_mistyped_image_is_answered_by_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match=r"photo.jgp: no such file. Did you mean .*photo.jpg\?"):
        refuse_absent([tmp_path / "photo.jgp"])


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools under numpy 2
def test_the_coco_file_holds_the_same_masks(tmp_path: Path) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (7, 5))
    classes[classes == 1] = 0
    file = CocoFile(["road", "sky", "car"])
    file.add("a.jpg", classes)
    file.write(tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    found = np.full(classes.shape, -1)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        assert (found[mask] == -1).all() and mask.sum() == annotation["area"]
        found[mask] = annotation["category_id"] - 1
    assert (found == classes).all()
    categories = json.loads((tmp_path / "coco.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["road", "sky", "car"]


def test_lists_tell_images_of_one_name_apart() -> None:
    files = [
        Path(name) for name in ("in/one/a.jpg", "in/two/a.jpg", "in/b.jpg", "/far/c.jpg", "tmp/a.jpg", "tmp/c.jpg")
    ]
    origins = {files[-2]: "https://photos.example/7/a.jpg", files[-1]: "https://photos.example/7/c.jpg"}
    assert list(told_apart(files[:4], {}).values()) == ["one/a.jpg", "two/a.jpg", "b.jpg", "c.jpg"]
    called = told_apart([files[0], files[1], files[2], *files[4:]], origins)
    assert list(called.values()) == ["one/a.jpg", "two/a.jpg", "b.jpg", origins[files[-2]], "c.jpg"]
    assert list(told_apart([Path("a.jpg"), Path("in/a.jpg"), Path("../a.jpg")], {}).values()) == [
        f"{Path.cwd().name}/a.jpg",
        f"{Path.cwd().name}/in/a.jpg",
        "a.jpg",
    ]


def test_images_at_other_urls(shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    there = fsspec.filesystem("memory")
    there.put(str(shots), "/shots", recursive=True)
    found = find_images(
        ["memory://shots", "memory://shots/below/c.jpg", "memory://shots/no.jpg", "memory://no"], tmp_path
    )
    assert [path.name for path in found.files] == ["a.PNG", "b.jpg", "c.jpg"]
    assert found.origins[found.files[2]] == "memory://shots/below/c.jpg"
    assert found.failed == (("memory://shots/no.jpg", "no such file"), ("memory://no", "no images in this folder"))
    there.rm("/shots", recursive=True)


def test_a_folder_with_images_is_not_searched_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.jpg").touch()

    def searched(*_: object) -> None:
        raise AssertionError("a tree may hold millions of files")

    monkeypatch.setattr(Path, "rglob", searched)
    refuse_absent([tmp_path])
