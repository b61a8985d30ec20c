from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.catalog import Recipe, load_mixture
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.encoders import encoders
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


def test_the_bank_knows_what_wider_labels_keep(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    streets, rooms = make_dataset("streets", STREETS), replace(make_dataset("rooms", ROOMS), annotation_type="box")
    plain = embed_labels([streets], out, encoder=clip_spec).version
    assert Bank.load(out).kept == {}
    boxes = embed_labels([rooms], out).version
    bank = Bank.load(out)
    assert bank.kept == {"rooms": "parts"} and bank.for_dataset("streets").kept == {}
    assert embed_labels([streets], out).version == boxes, "what is embedded later leaves it as it is"
    embed_labels([replace(rooms, overlapping=True)], out)
    assert Bank.load(out).kept == {"rooms": "everything"}
    masks = embed_labels([replace(rooms, annotation_type="mask")], out)
    assert masks.new and len({plain, boxes, masks.version}) == 3 and not Bank.load(out).kept
    assert replace(bank, kept={}, version="").version[-8:] == masks.version[-8:]


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
    assert (back.new, back.back) == (False, True)


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
    assert (report.missing_descriptions, report.truncated, report.truncated_labels) == (0, 1, ("streets:2 rider",))
    (tmp_path / "mine" / "streets.csv").write_text("index,name,description\n2,driver,One who drives\n")
    with pytest.raises(DescriptionsError, match="'driver' here"):
        embed_labels([streets], out, descriptions=tmp_path / "mine")


def test_words_have_a_bank_of_their_own(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    streets = make_dataset("streets", STREETS)
    report = embed_labels([streets], out, encoder=clip_spec, words=True)
    assert list(Bank.load(out).texts) == ["road", "sidewalk", "rider"] and report.missing_descriptions == 0
    assert embed_labels([make_dataset("rooms", ROOMS)], out).prompt == ("{name}",)  # a bank goes on as it began
    with pytest.raises(BankError, match="is a bank of words, not of '{name}: {description}'. Choose another --out"):
        embed_labels([streets], out, prompts=["{name}: {description}"])
    with pytest.raises(UsageError, match="--words and --prompt can't be combined"):
        embed_labels([streets], out, words=True, prompts=["{name}"])


SEVERAL = ("{name}", "{name}: {sentence}")
TWO_SENTENCES = {"road": "For cars. Paved, e.g. with tar.", "sky": "", "lane": "For cars."}


@pytest.mark.parametrize("several", ["average", "keep"])
def test_several_sentences_of_a_label(make_dataset: MakeDataset, clip_spec: str, out: Path, several: str) -> None:
    streets = make_dataset("streets", TWO_SENTENCES)
    report = embed_labels([streets], out, encoder=clip_spec, prompts=SEVERAL, several=several)
    assert (report.texts, report.sentences, report.several, report.prompt) == (3, 7, several, SEVERAL)
    assert report.missing_descriptions == 1
    bank = Bank.load(out)
    assert bank.texts[0] == "road\nroad: For cars.\nroad: Paved, e.g. with tar."
    encoder = encoders.load_encoder(clip_spec)
    road = encoder.encode(bank.texts[0].split("\n"))
    mean = road.mean(axis=0)
    np.testing.assert_allclose(bank.vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert bank.tokens[0] == max(encoder.count_tokens(bank.texts[0].split("\n"))[0])
    vectors, rows = bank.sentences()
    if several == "keep":
        assert rows.tolist() == [0, 0, 0, 1, 1, 2, 2]
        np.testing.assert_allclose(vectors[:3], road, atol=1e-6)
        assert bank.for_keys([("streets", 1)]).sentences()[0].shape == (2, bank.dim)
    else:
        np.testing.assert_array_equal(vectors, bank.vectors)


def test_a_bank_of_several_sentences_goes_on_as_it_began(
    make_dataset: MakeDataset, clip_spec: str, out: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    streets, rooms = make_dataset("streets", TWO_SENTENCES), make_dataset("rooms", ROOMS)
    first = embed_labels([streets], out, encoder=clip_spec, prompts=SEVERAL, several="keep")
    mean = embed_labels([streets], tmp_path / "mean", encoder=clip_spec, prompts=SEVERAL)
    assert first.version != mean.version
    np.testing.assert_array_equal(Bank.load(out).vectors, Bank.load(tmp_path / "mean").vectors)
    added = embed_labels([rooms], out)
    assert (added.encoded, added.reused, added.several) == (3, 3, "keep") and Bank.load(out).parts is not None
    with pytest.raises(BankError, match="several sentences by 'keep', not 'average'"):
        embed_labels([rooms], out, several="average")
    request.getfixturevalue("no_model")
    assert embed_labels([rooms, streets], out, prompts=SEVERAL).version == added.version


def test_a_label_is_never_another_class(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    embed_labels([make_dataset("streets", STREETS)], out, encoder=clip_spec)
    embed_labels([make_dataset("streets", {**STREETS, "wall": "New."})], out)  # at the end
    embed_labels(
        [make_dataset("streets", {"Road": "The same.", **{k: v for k, v in STREETS.items() if k != "road"}})], out
    )
    with pytest.raises(
        BankError, match="streets 0 is 'Road' in the bank and 'wall' now; .*Give new classes new indices"
    ):
        embed_labels([make_dataset("streets", {"wall": "New.", **STREETS})], out)


def test_adding_datasets_renumbers_nothing(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    embed_labels([make_dataset("middle", STREETS)], out, encoder=clip_spec)
    before = Bank.load(out)
    for number in range(9):
        embed_labels([make_dataset(f"{'az'[number % 2]}{number}", ROOMS)], out)
    after = Bank.load(out)
    assert len(after.datasets()) == 10
    assert [key for key in after.keys if key[0] == "middle"] == before.keys
    np.testing.assert_array_equal(after.rows(before.keys), before.vectors)


def test_weights_that_changed_under_their_name_are_refused(
    make_dataset: MakeDataset, clip_weights: Path, tmp_path: Path, out: Path
) -> None:
    import torch

    weights = tmp_path / "weights.pt"
    weights.write_bytes(clip_weights.read_bytes())
    embed_labels([make_dataset("streets", STREETS)], out, encoder=f"open_clip:tiny-clip/{weights}")
    state = torch.load(clip_weights, weights_only=True)
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, weights)
    with pytest.raises(BankError, match=r"made by open_clip:tiny-clip \(weights .*but the encoder is .*Restore what"):
        embed_labels([make_dataset("rooms", ROOMS)], out)
    assert Bank.load(out).datasets() == ["streets"]


def test_another_activation_of_the_same_weights_is_refused(
    make_dataset: MakeDataset, clip_weights: Path, tmp_path: Path, out: Path
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "weights.pt").write_bytes(clip_weights.read_bytes())
    config = json.loads(clip_weights.with_suffix(".json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    embed_labels([make_dataset("streets", STREETS)], out, encoder=f"open_clip:tiny-clip/{folder}")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**config, "quick_gelu": True}}))
    for more in (ROOMS, {}):  # found even where nothing is new
        with pytest.raises(BankError, match=r", gelu, .*but the encoder is .*, quick_gelu, "):
            embed_labels([make_dataset("streets", STREETS), *([make_dataset("rooms", more)] if more else [])], out)


AT_ONCE = """
import sys, time
from pathlib import Path
import numpy as np
from labelmerge.catalog import load_recipe
from labelmerge.encoders import encoders
from labelmerge.embed.embed import embed_labels

class Slow:
    def __init__(self, spec):
        self.spec, self.dim, self.max_tokens = spec, 4, 77
        self.identity = {"spec": spec, "model": "open_clip:tiny", "activation": "", "tokenizer": "", "versions": {},
                         "weights_sha256": encoders.fingerprint(spec).weights_sha256}
    def encode(self, texts, **options):
        time.sleep(0.2)
        rows = np.array([np.random.default_rng(list(text.encode())).normal(size=4) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    def count_tokens(self, texts):
        return [3] * len(texts), [False] * len(texts)

encoders.load_encoder = lambda spec, device=None: Slow(spec)
recipe, out, weights = sys.argv[1:]
embed_labels([load_recipe(recipe)], Path(out), encoder=f"open_clip:tiny/{weights}")
"""


def test_two_processes_at_once_lose_nothing(make_dataset: MakeDataset, tmp_path: Path, out: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"any")
    recipes = [make_dataset(name, {f"{name} {n}": "" for n in range(3)}) for name in "abcd"]
    processes = [
        subprocess.Popen([sys.executable, "-c", AT_ONCE, str(recipe.path), str(out), str(tmp_path / "weights.pt")])
        for recipe in recipes
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert Bank.load(out).datasets() == ["a", "b", "c", "d"]
    assert sorted(path.name[:5] for path in out.glob("*.parquet")) == ["v0001", "v0002", "v0003", "v0004"]
    assert not (out / ".lock").exists()


def test_a_run_with_nothing_new_imports_no_torch(make_dataset: MakeDataset, clip_spec: str, out: Path) -> None:
    recipe = make_dataset("streets", STREETS)
    first = embed_labels([recipe], out, encoder=clip_spec)
    code = (
        "import sys; from labelmerge.cli.main import cli; cli(sys.argv[1:], standalone_mode=False); "
        "assert not {'torch', 'open_clip', 'sentence_transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, "embed", str(recipe.path), "--out", str(out)]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "0 encoded, 3 reused" in again.stdout and f"Unchanged: {first.version}" in again.stdout


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
    with pytest.raises(UsageError, match="are all called streets"):
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
