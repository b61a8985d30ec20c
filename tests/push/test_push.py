"""`labelmerge push`: to a hub and other places on loopback, again, over other files, with faults; and the cards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from labelmerge import network
from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_recipe
from labelmerge.errors import LabelmergeError, RemoteError, UsageError
from labelmerge.model.checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint
from labelmerge.push.push import push
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits

from ..companies import draw, recipes
from ..loading.toy_shards import Toy, toy_bank
from .hub_server import TOKEN, Hub, serving_hub

# huggingface_hub's way to upload by Git LFS; and a run has a Parquet file, its bank.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file:UserWarning"),
]

STREETS = Toy("streets", ("road", "sky", "car"))
ROOMS = Toy("rooms", ("wall", "a | `b` <i>"), split="val")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants, hf_file_system

    hf_file_system.HfFileSystem.clear_instance_cache()
    with serving_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server speaks Git LFS alone
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
    hf_file_system.HfFileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 2)


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://place"
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for toy in (STREETS, ROOMS):
        toy.write(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    import torch

    folder = tmp_path / "my-run"
    for step in (1, 2):
        save_checkpoint(
            folder, step=step, tensors={"w": torch.ones(3)}, model={"name": "tiny", "embedding_dim": 3},
            state={"x": 1}, config={"method": "ssiw"}, meta={"columns": ["road", "sky"], "datasets": ["streets"]},
            bank_folder_writer=toy_bank([STREETS]).save_copy, taxonomy="dataset\n",
        )  # fmt: skip
    weights = json.loads((find_checkpoint(folder) / "meta.json").read_text())["sha256"]["model.safetensors"][:16]
    (folder / "config.toml").write_text('method = "ssiw"\n')
    sets = [{"dataset": "streets", "split": "val", "images": 1234, "miou": 0.5}]
    for name, hash_ in (("results", weights), ("older", "x")):
        content = {"protocol": {"checkpoint": {"hash": hash_}}, "sets": sets}
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "results.streets-val.png").write_bytes(b"picture")
    return folder


def front(card: bytes) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.decode().split("---\n")[1])
    return found


def test_shards_on_the_hub_can_be_read_there(hub: Hub, shards: Path) -> None:
    url = "hf://datasets/me/streets"
    (shards / "notes.txt").write_text("not part of it")
    report = push(shards, url)
    assert report.kind == "shards" and report.uploaded.url == f"{hub.url}/datasets/me/streets"
    repo = hub.repos["datasets/me/streets"]
    assert repo.private and "notes.txt" not in repo.files
    for name, data in repo.files.items():
        if name not in ("README.md", ".gitattributes", ".pushed.json"):
            assert data == (shards / name).read_bytes()
    assert repo.large == {path.relative_to(shards).as_posix() for path in shards.rglob("*.tar")}
    for there, here in zip(find_splits([Path(url)]), find_splits([shards]), strict=True):
        one, other = ShardSet.open(there), ShardSet.open(here)
        assert one.fetch(0).members == other.fetch(0).members and one.where.startswith(url)
    card = repo.files["README.md"]
    assert front(card)["license"] == "unknown" and front(card)["task_categories"] == ["image-segmentation"]
    assert front(card)["size_categories"] == ["n<1K"]
    assert front(card)["configs"][0] == {
        "config_name": "rooms",
        "data_files": [{"split": "validation", "path": "rooms/val/*.tar"}],
    }
    assert "| streets | train | 6 | 2 |" in card.decode() and r"| 1 | a \| 'b' &lt;i> |" in card.decode()
    assert f"labelmerge train --shards {url} --bank bank --out run" in card.decode()


def test_a_card_counts_classes_over_all_splits_and_names_what_one_can_do(hub: Hub, tmp_path: Path) -> None:
    counts = {"val": {"0": 1, "1": 0, "2": 0}, "test": {"0": 60_000, "1": 20_000, "2": 0}}
    text = 'role = "eval"\n'
    recipe = {"name": "drives", "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text}
    for split, pixels in counts.items():
        changes = {"class_pixels": pixels, "recipe": recipe}
        Toy("drives", ("hut", "road", "yak"), split=split, changes=changes).write(tmp_path / "s")
    push(tmp_path / "s", "hf://datasets/me/drives")
    card = hub.repos["datasets/me/drives"].files["README.md"].decode()
    assert "| 0 | hut | 75.00% of pixels |\n| 1 | road | 25.00% of pixels |\n| 2 | yak | never |\n" in card
    assert "$ pip install labelmerge-seg\n" in card
    assert (
        "labelmerge eval --checkpoint run --shards hf://datasets/me/drives" in card and "labelmerge train" not in card
    )
    assert 'load_dataset("me/drives", "drives", split="test", streaming=True)' in card


def test_datasets_of_the_hub_loads_what_was_pushed_by_its_card(shards: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    push(shards, f"file://{tmp_path}/there", licence="mit")
    assert DatasetCard.load(tmp_path / "there/README.md").data.license == "mit"
    for dataset, split in (("streets", "train"), ("rooms", "validation")):
        sample = next(iter(load_dataset(str(tmp_path / "there"), dataset, split=split, streaming=True)))
        assert sample["__key__"].startswith(dataset) and {"png", "json", "mask.png"} <= sample.keys()


def test_the_same_again_sends_nothing_and_what_broke_off_goes_on(hub: Hub, shards: Path) -> None:
    url = "hf://datasets/me/streets"
    hub.faults["put"] = [403] * 9
    with pytest.raises(RemoteError, match=f"^{url}: ") as caught:
        push(shards, url)
    assert "\n" not in str(caught.value)
    del hub.faults["put"]
    stored = set(hub.stored)
    hub.asked.clear()
    first = push(shards, url)
    assert hub.asked.count("put") == len(hub.stored) - len(stored)
    commits = hub.repos["datasets/me/streets"].commits
    again = push(shards, url)
    assert (again.uploaded.sent, again.uploaded.same) == (0, first.uploaded.sent + first.uploaded.same)
    assert hub.repos["datasets/me/streets"].commits == commits


def test_nothing_is_overwritten_unasked(hub: Hub, shards: Path) -> None:
    url, repo = "hf://datasets/me/streets", "datasets/me/streets"
    push(shards, url)
    hub.repos[repo].files["README.md"] = b"mine"
    hub.repos[repo].files["rooms/val/manifest.json"] = b"{}"
    tar = next(iter(hub.repos[repo].large))
    hub.repos[repo].files[tar] = hub.repos[repo].files[tar][:-1] + b"!"
    before = dict(hub.repos[repo].files)
    with pytest.raises(RemoteError, match="has 2 files already, with other content: .*manifest.json.* --replace"):
        push(shards, url)
    assert hub.repos[repo].files == before
    shutil.rmtree(shards / "rooms")
    own = {"LICENSE": b"terms", "notes/figure.png": b"\x89PNG"}  # what the owner put there by other means
    hub.repos[repo].files |= own
    report = push(shards, url, replace=True, licence="mit")
    assert own.items() <= hub.repos[repo].files.items()
    left = set(hub.repos[repo].files)
    assert report.uploaded.removed == 3 and not any(name.startswith("rooms") for name in left)
    assert front(hub.repos[repo].files["README.md"])["license"] == "mit"


def test_a_card_of_ones_own_and_one_that_was_edited_there(hub: Hub, shards: Path) -> None:
    repo = "datasets/me/streets"
    push(shards, f"hf://{repo}", public=True)
    assert not hub.repos[repo].private
    hub.repos[repo].files["README.md"] = b"edited there"
    report = push(shards, f"hf://{repo}")
    assert report.uploaded.kept_card and hub.repos[repo].files["README.md"] == b"edited there"
    (shards / "README.md").write_text("---\nlicense: other\nlicense_name: x\ntags:\n- a\n---\nMy card.\n")
    with pytest.raises(RemoteError, match="1 file already, with other content: README.md"):
        push(shards, f"hf://{repo}")
    report = push(shards, f"hf://{repo}", replace=True, licence="cc-by-4.0")
    card = hub.repos[repo].files["README.md"]
    assert report.own_card and front(card) == {"license": "cc-by-4.0", "license_name": "x", "tags": ["a"]}
    assert card.endswith(b"---\nMy card.\n")


def test_a_run_is_a_model_without_what_only_resuming_needs(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    push(run_folder, "hf://me/net")
    files = hub.repos["models/me/net"].files
    step = "checkpoints/step-000002"
    assert {"config.toml", "results.json", "results.streets-val.png", f"{step}/model.safetensors"} <= files.keys()
    assert not any("state.pt" in name or "step-000001" in name for name in files)
    text = files["README.md"].decode()
    assert front(files["README.md"])["pipeline_tag"] == "image-segmentation"
    assert text.count("| streets val | 1,234 | 50.0% |") == 1 and "- road\n- sky\n" in text
    assert load_checkpoint(Path("hf://me/net")).step == 2
    for name, data in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    assert load_checkpoint(tmp_path / "copy").step == 2
    with pytest.raises(LabelmergeError, match="state.pt: is missing"):
        load_state(tmp_path / "copy")
    push(run_folder, "hf://me/net", state=True)
    assert f"{step}/state.pt" in hub.repos["models/me/net"].files


def test_a_folder_in_a_repository(hub: Hub, tmp_path: Path) -> None:
    toy_bank([STREETS]).save(tmp_path / "bank")
    report = push(tmp_path / "bank", "hf://datasets/me/all/banks/one")
    assert report.uploaded.url == f"{hub.url}/datasets/me/all/tree/main/banks/one"
    assert push(tmp_path / "bank", "hf://datasets/me/all/banks/one/").uploaded.sent == 0
    assert len(Bank.load(Path("hf://datasets/me/all/banks/one"))) == 3
    card = hub.repos["datasets/me/all"].files["banks/one/README.md"]
    assert front(card)["configs"][0]["data_files"][0]["path"].endswith(".parquet") and b"| streets | 3 |" in card


@pytest.mark.parametrize(
    ("token", "fault", "what"),
    [
        ("hf_wrong", None, "is refused .*401.* Log in with `hf auth login`, or set HF_TOKEN"),
        (TOKEN, ("create", 403), "is refused .*403.* Log in"),
        (TOKEN, ("commit", 403), "is refused .*403.* Log in"),
        (TOKEN, "away", "can't be reached, 3 tries .*See to the connection"),
        ("", None, "needs a token. Log in with `hf auth login`"),
    ],
)
def test_who_may_not_and_who_is_alone_is_told_in_a_line(
    token: str, fault: Any, what: str, hub: Hub, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
    if fault == "away":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    elif fault:
        hub.faults = {fault[0]: [fault[1]] * 9}
    with pytest.raises(RemoteError, match=f"^hf://datasets/me/x: {what}") as caught:
        push(shards, "hf://datasets/me/x")
    assert "\n" not in str(caught.value)


def test_any_other_place(memory: str, shards: Path, tmp_path: Path) -> None:
    first = push(shards, memory)
    assert push(shards, memory).uploaded.same == first.uploaded.sent
    assert [ShardSet.open(split).where for split in find_splits([Path(memory)])]
    there = fsspec.filesystem("memory")
    manifest = "/place/rooms/val/manifest.json"
    there.pipe_file(manifest, b"x" * there.size(manifest))  # of the same size, by somebody else
    there.rm("/place/.pushed.json")
    with pytest.raises(RemoteError, match=f"^{memory}: has 6 files already"):
        push(shards, memory)
    assert push(shards, memory, replace=True).uploaded.sent == first.uploaded.sent
    push(shards, f"file://{tmp_path}/elsewhere/deep")
    assert len(find_splits([tmp_path / "elsewhere/deep"])) == 2


def test_what_is_damaged_stays_here(memory: str, shards: Path, run_folder: Path, tmp_path: Path) -> None:
    toy_bank([STREETS]).save_copy(tmp_path / "bank")
    tar, parquet = next(shards.rglob("*-000001.tar")), next((tmp_path / "bank").glob("*.parquet"))
    weights = find_checkpoint(run_folder) / "model.safetensors"
    for folder, path in ((shards, tar), (tmp_path / "bank", parquet), (run_folder, weights)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(LabelmergeError, match=f"^{path}: is damaged: its SHA-256 is another"):
            push(folder, memory)
    tar.unlink()
    with pytest.raises(LabelmergeError, match="can't be read"):
        push(shards, memory)
    assert not fsspec.filesystem("memory").find("/place")


def test_what_broke_off_elsewhere_goes_on_and_has_no_manifest_before(
    memory: str, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    real = type(system).put_file
    sent: list[str] = []

    def put(self: Any, local: str, remote: str, **more: Any) -> None:
        if sum(name.endswith(".tar") for name in sent) >= 2:
            raise ConnectionError("the line is cut")
        sent.append(remote)
        real(self, local, remote, **more)

    monkeypatch.setattr(type(system), "put_file", put)
    with pytest.raises(RemoteError, match=r"can't be reached, 3 tries \(the line is cut\)"):
        push(shards, memory)
    assert not any(name.endswith("manifest.json") for name in system.find("/place"))
    monkeypatch.setattr(type(system), "put_file", real)
    again = push(shards, memory)
    assert again.uploaded.same == 2 and len(find_splits([Path(memory)])) == 2


@pytest.mark.parametrize(
    ("what", "url", "message"),
    [
        ("shards", "hf://me/x", "this is a dataset.* hf://datasets/OWNER/NAME"),
        ("run", "hf://datasets/me/x", "this is a model.* hf://OWNER/NAME"),
        ("shards", "hf://datasets/x", "is not the address of a repository"),
        ("shards", "https://example.org/x", "a web server accepts no uploads"),
        ("empty", "memory://x", "empty is neither shards nor an export"),
        ("nothing", "memory://x", "nothing: no such folder"),
    ],
)
def test_what_makes_no_sense(
    what: str, url: str, message: str, shards: Path, run_folder: Path, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        push(run_folder if what == "run" else tmp_path / what, url)
    assert "create" not in hub.asked


def test_options_without_effect_are_refused(memory: str, shards: Path) -> None:
    with pytest.raises(UsageError, match="only the hub's repositories"):
        push(shards, memory, public=True)
    with pytest.raises(UsageError, match="is no run"):
        push(shards, memory, state=True)
    for inside in (shards, shards / "new"):
        with pytest.raises(UsageError, match="itself. Push to another folder"):
            push(shards, f"file://{inside}")
    assert not fsspec.filesystem("memory").exists("/place")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Shards of a dataset on disk, which have all that exports need."""
    draw(tmp_path)
    shard(load_recipe(recipes(tmp_path)["gate"]), tmp_path / "gate", "train", tmp_path / "gates")
    return tmp_path / "gates"


def test_the_command_and_exports(
    run: Callable[..., Any], memory: str, hub: Hub, gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
    out = tmp_path / "one"
    pushed = run("export", gate, "--format", "hf", "--out", out, "--push", "me/one")
    assert pushed.exit_code == 0 and f"Pushed to {hub.url}/datasets/me/one." in pushed.output, pushed.output
    assert "data/train-00000.parquet" in hub.repos["datasets/me/one"].large
    assert hub.repos["datasets/me/one"].files["README.md"] == (out / "README.md").read_bytes()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    late = run("export", gate, "--format", "hf", "--out", tmp_path / "two", "--push", "me/two")
    assert late.exit_code == 1 and "two: is written, but not pushed: hf://datasets/me/two is refused" in late.stderr
    assert f"then: labelmerge push {tmp_path / 'two'} hf://datasets/me/two" in late.stderr
    monkeypatch.setenv("HF_TOKEN", "")
    soon = run("export", gate, "--format", "hf", "--out", tmp_path / "three", "--push", "me/three")
    assert soon.exit_code == 1 and "needs a token" in soon.stderr and not (tmp_path / "three").exists()
    out = tmp_path / "png"
    assert run("export", gate, "--format", "index-png", "--out", out).exit_code == 0
    result = run("push", out, f"{memory}/png", "--license", "mit")
    assert result.exit_code == 0 and f"Pushed export {out} to {memory}/png: " in result.output
    card = fsspec.filesystem("memory").cat("/place/png/README.md").decode()
    assert "images with 3 classes, as images and index PNGs" in card and "| 2 | person |" in card
    result = run("push", out, "nowhere")
    assert result.exit_code == 2 and "nowhere is not a URL. Write hf://datasets/OWNER/NAME" in result.stderr
    assert json.loads(run("push", out, f"{memory}/png", "--json").stdout)["sent"] == 0
