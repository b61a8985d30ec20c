from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.catalog import Recipe, load_mixture
from labelmerge.embed import encoders
from labelmerge.embed.bank import Bank
from labelmerge.embed.labels import embed_labels, find_datasets
from labelmerge.errors import BankError, DescriptionsError, RecipeError, UsageError

MakeDataset = Callable[[str, Mapping[str, str]], Recipe]

STREETS = {"road": "Where cars drive.", "sidewalk": "Where people walk.", "rider": ""}
ROOMS = {"mouse": "A pointing device.", "floor": "What one stands on.", "road": "Where cars drive."}


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: str, device: str | None = None) -> encoders.TextEncoder:
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr(encoders, "load_encoder", refuse)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bank"


def test_labels_become_rows(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    report = embed_labels([make_dataset("streets", STREETS), make_dataset("rooms", ROOMS)], out, encoder=clip_spec)
    assert (report.labels, report.texts, report.encoded, report.reused) == (6, 5, 5, 0)
    assert (report.missing_descriptions, report.truncated, report.new) == (1, 0, True)
    assert report.datasets == {"rooms": 3, "streets": 3}
    bank = Bank.load(out)
    assert bank.version == report.version and bank.encoder == clip_spec
    assert bank.texts[bank.keys.index(("streets", 2))] == "rider: An image of rider."
    np.testing.assert_array_equal(bank.rows([("streets", 0)]), bank.rows([("rooms", 2)]))
    np.testing.assert_array_equal(encoders.load_encoder(clip_spec).encode(bank.texts), bank.vectors)


def test_embedding_the_same_again_loads_no_model(
    make_dataset: MakeDataset,
    clip_spec: str,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    streets, rooms = make_dataset("streets", STREETS), make_dataset("rooms", ROOMS)
    first = embed_labels([streets, rooms], out, encoder=clip_spec)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    request.getfixturevalue("no_model")
    for again in (
        embed_labels([streets, rooms], out, encoder=clip_spec),
        embed_labels([rooms, streets], out),
        embed_labels([rooms], out),
    ):
        assert again == replace(first, new=False, encoded=0, reused=5)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_another_folder_gets_the_same_version(make_dataset: MakeDataset, clip_spec: str, tmp_path: Path) -> None:
    streets, rooms = make_dataset("streets", STREETS), make_dataset("rooms", ROOMS)
    at_once = embed_labels([streets, rooms], tmp_path / "at once", encoder=clip_spec)
    embed_labels([rooms], tmp_path / "in two", encoder=clip_spec)
    in_two = embed_labels([streets], tmp_path / "in two", encoder=clip_spec)
    assert at_once.version[-8:] == in_two.version[-8:]
    one, other = (Bank.load(tmp_path / name).vectors for name in ("at once", "in two"))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_weights_are_known_by_their_content_wherever_they_lie(
    make_dataset: MakeDataset, clip_spec: str, clip_weights: Path, tmp_path: Path, out: Path
) -> None:
    streets = make_dataset("streets", STREETS)
    first = embed_labels([streets], out, encoder=clip_spec)
    (tmp_path / "moved.pt").write_bytes(clip_weights.read_bytes())
    moved = embed_labels([streets], out, encoder=f"open_clip:tiny-clip/{tmp_path / 'moved.pt'}")
    assert (moved.version, moved.encoded) == (first.version, 0)


def test_a_changed_description_is_the_only_one_encoded(
    make_dataset: MakeDataset, clip_spec: str, out: Path, request: pytest.FixtureRequest
) -> None:
    first = embed_labels([make_dataset("streets", STREETS)], out, encoder=clip_spec)
    before = Bank.load(out)
    changed = embed_labels([make_dataset("streets", {**STREETS, "rider": "One who rides."})], out)
    assert (changed.encoded, changed.reused, changed.missing_descriptions) == (1, 2, 0)
    assert changed.version.startswith("v0002-")
    after = Bank.load(out)
    same = [("streets", 0), ("streets", 1)]
    np.testing.assert_array_equal(after.rows(same), before.rows(same))
    assert not np.allclose(after.rows([("streets", 2)]), before.rows([("streets", 2)]))
    request.getfixturevalue("no_model")
    back = embed_labels([make_dataset("streets", STREETS)], out)
    assert back.version == first.version == Bank.load(out).version


def test_only_leaves_out_the_rest(
    make_dataset: MakeDataset, clip_spec: str, out: Path, request: pytest.FixtureRequest
) -> None:
    streets, rooms = make_dataset("streets", STREETS), make_dataset("rooms", ROOMS)
    embed_labels([streets, rooms], out, encoder=clip_spec)
    request.getfixturevalue("no_model")
    assert embed_labels([streets], out, only=True).datasets == {"streets": 3}
    assert embed_labels([streets, rooms], out).version.startswith("v0001-")


def test_descriptions_of_ones_own(make_dataset: MakeDataset, clip_spec: str, tmp_path: Path, out: Path) -> None:
    streets = make_dataset("streets", STREETS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "streets.csv").write_text("index,name,description\n2,rider," + "A long tale. " * 40 + "\n")
    report = embed_labels([streets], out, encoder=clip_spec, descriptions=tmp_path / "mine")
    assert (report.missing_descriptions, report.truncated) == (0, 1)
    (tmp_path / "mine" / "streets.csv").write_text("index,name,description\n2,driver,One who drives\n")
    with pytest.raises(DescriptionsError, match="'driver' here"):
        embed_labels([streets], out, descriptions=tmp_path / "mine")


def test_words_have_a_bank_of_their_own(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    streets = make_dataset("streets", STREETS)
    report = embed_labels([streets], out, encoder=clip_spec, words=True)
    assert list(Bank.load(out).texts) == ["road", "sidewalk", "rider"] and report.missing_descriptions == 0
    with pytest.raises(BankError, match="is a bank of words, not of sentences. Choose another --out"):
        embed_labels([streets], out)


def test_another_encoder_encodes_all_anew(
    make_dataset: MakeDataset, clip_spec: str, clip_weights: Path, tmp_path: Path, out: Path
) -> None:
    import torch

    streets, rooms = make_dataset("streets", STREETS), make_dataset("rooms", ROOMS)
    embed_labels([streets], out, encoder=clip_spec)
    state = torch.load(clip_weights, weights_only=True)
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, tmp_path / "other.pt")
    other = embed_labels([rooms], out, encoder=f"open_clip:tiny-clip/{tmp_path / 'other.pt'}")
    assert (other.encoded, other.reused, other.datasets) == (5, 0, {"rooms": 3, "streets": 3})
    first = Bank.load(out, "v0001")
    assert not first.same_encoder(Bank.load(out))
    with pytest.raises(BankError, match=r"made by open_clip:tiny-clip \(weights .*but the encoder is open_clip:tiny"):
        first.check_encoder(encoders.load_encoder(other.encoder))


def test_an_encoder_that_changed_under_its_name_is_noticed(
    make_dataset: MakeDataset, clip_spec: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_labels([make_dataset("streets", STREETS)], out, encoder=clip_spec)
    live: Any = encoders.load_encoder(clip_spec)
    Bank.load(out).check_encoder(live)
    encode = live.encode
    monkeypatch.setattr(live, "encode", lambda texts, **options: np.roll(encode(texts, **options), 1, axis=1))
    with pytest.raises(BankError, match="no longer gives the vector"):
        Bank.load(out).check_encoder(live)


def test_words_for_datasets(make_dataset: MakeDataset) -> None:
    recipe = make_dataset("streets", STREETS)
    assert [found.name for found in find_datasets(["camvid", str(recipe.path), "camvid"])] == ["camvid", "streets"]
    assert [found.name for found in find_datasets(["mseg7"])] == load_mixture("mseg7")
    assert len(find_datasets(["all"])) > 15
    with pytest.raises(UsageError, match="unknown dataset 'citiscapes'. Did you mean cityscapes"):
        find_datasets(["citiscapes"])
    with pytest.raises(UsageError, match="streets: named twice"):
        embed_labels([recipe, recipe], Path("nowhere"))


def test_bad_input_makes_no_bank(make_dataset: MakeDataset, out: Path) -> None:
    streets = make_dataset("streets", STREETS)
    with pytest.raises(UsageError, match="unknown encoder ''"):
        embed_labels([streets], out, encoder="")
    streets.descriptions.write_text("index,name\n0,road\n99999999999,car\n")
    with pytest.raises(RecipeError, match="streets: class index 99999999999 does not fit a 16-bit mask"):
        embed_labels([streets], out, encoder="offline")
    assert not out.exists()


def test_the_command(run: Any, make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    recipe = make_dataset("streets", STREETS)
    made = run("embed", recipe.path, "--encoder", clip_spec, "--out", out)
    assert made.exit_code == 0, made.output
    assert "3 encoded, 0 reused" in made.stdout and "1 label has no description" in made.stdout
    assert f"Made {Bank.load(out).version} in {out}" in made.stdout
    again = run("embed", recipe.path, "--out", out, "--json")
    assert json.loads(again.stdout)["reused"] == 3
    wrong = run("embed", "citiscapes", "--out", out)
    assert wrong.exit_code == 2 and "Did you mean cityscapes" in wrong.stderr and "Traceback" not in wrong.output
