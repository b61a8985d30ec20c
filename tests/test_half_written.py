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
from labelmerge.errors import OutputError
from labelmerge.recipe.recipe import make

from .loading.toy_shards import Toy, toy_bank


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the disk be full when a file whose path ends so is written."""

    def go(ending: str) -> None:
        plain = files.atomic_file

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
