"""What needs several files is there with all of them or none, wherever a disk is full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from labelmerge import files
from labelmerge.bank.exchange import export_bank
from labelmerge.catalog import load_recipe
from labelmerge.describe.curated import write_curated
from labelmerge.errors import OutputError, RemoteError
from labelmerge.recipe.recipe import make
from labelmerge.sharding.shard import shard
from labelmerge.upload import upload

from .loading.toy_shards import Toy, toy_bank


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the disk be full when a file whose path ends so is written."""

    plain = files.atomic_file

    def go(ending: str) -> None:
        @contextmanager
        def limited(path: Path) -> Iterator[IO[bytes]]:
            with plain(path) as stream:
                yield stream
                if str(path).endswith(ending):
                    raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files, "atomic_file", limited)

    return go


@pytest.mark.parametrize("ending", ["x.npy", "x.names.csv"])
def test_the_vectors_of_a_bank_and_their_names(full: Callable[[str], None], ending: str, tmp_path: Path) -> None:
    full(ending)
    with pytest.raises(OutputError, match="no space left"):
        export_bank(toy_bank([Toy("mine", ("a", "b"))]), tmp_path / "new/x.npy")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("ending", ["out/data.csv", "out/data.toml"])
def test_a_recipe_and_its_classes(full: Callable[[str], None], ending: str, tmp_path: Path) -> None:
    full(ending)
    for folder, values in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.eye(8, dtype=np.uint8))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / f"data/{folder}/0.png")
    with pytest.raises(OutputError, match="no space left"):
        make(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_descriptions_of_several_datasets(full: Callable[[str], None], tmp_path: Path) -> None:
    full("kitti.csv")
    with pytest.raises(OutputError, match="no space left"):
        write_curated([load_recipe("camvid"), load_recipe("kitti")], tmp_path / "new/words")
    assert not (tmp_path / "new").exists()


def test_a_split_of_which_no_shard_was_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder, values in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.eye(8, dtype=np.uint8))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / f"data/{folder}/0.png")
    recipe = load_recipe(make(tmp_path / "data", tmp_path / "recipes").recipe)

    def no_space(*_: object) -> Iterator[None]:
        raise OutputError("no space left on the device")
        yield

    monkeypatch.setattr("labelmerge.sharding.shard.make_shards", no_space)
    with pytest.raises(OutputError, match="no space left"):
        shard(recipe, tmp_path / "data", "train", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_an_upload_to_a_folder_of_this_machine(full: Callable[[str], None], tmp_path: Path) -> None:
    """It is tried once, names what could not be written, and leaves no half file in the next one's way."""
    url = f"file://{tmp_path}/there"
    (tmp_path / "b.tar").write_bytes(b"b" * 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
        full("b.tar")
        with pytest.raises(RemoteError, match=r"there/b\.tar: no space left on the device"):
            upload({"a.txt": b"a", "b.tar": tmp_path / "b.tar"}, url)
    assert not (tmp_path / "there/b.tar").exists()
    full("nothing")
    assert upload({"a.txt": b"a", "b.tar": tmp_path / "b.tar"}, url).sent == 1
    assert (tmp_path / "there/b.tar").read_bytes() == b"b" * 1000
