"""The commands of the pages on training, evaluation and methods, run in order as they stand there: tiny, on toy shards.

Comparisons print the commands of their variants, once they have read shards, bank and settings.
"""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe

from .loading.toy_shards import Toy
from .test_docs import _DOCS as DOCS
from .test_docs import _commands

_PAGES = {"training.md": 6, "evaluation.md": 6, "prediction.md": 1, "methods.md": 18}  # with so many commands at least
_SMALL = (
    (r"--preset \S+", "--preset tiny"),
    (r" --vary init=\+pretrained=imagenet", ""),  # which `tiny` has no weights of
    (r"--steps \d+", "--steps 1"),
    (r"--epochs \d+", "--epochs 1"),
    (r"=(11800|100)\b", "=4"),
    (r"=50\b", "=3"),
    (r"=10\b", "=2"),
    (r"--depth-max \d+", "--depth-max 80"),
    (r"shards-out/my_rgbd", "images-out/my_rgbd"),
    (r"--shards pseudo (?=.*lmseg)", "--shards shards-out/coco_panoptic "),  # masks after one step are empty
    (r"(?<=--checkpoint )run(?=.*--depth-crop)", "deep"),
)
# What needs weights or datasets that are elsewhere, or has a test of its own.
_NOT_RUN = ("…", "hub", "laion2b", "clip", "/data/", "demo", "table9")
_TRAINED = {
    "run": "cityscapes",
    "deep": "nyuv2/train --method depth",
    **dict.fromkeys(("segmenter", "merged", "run-naive", "run-name", "run-embedding"), "nyuv2/train"),
}


def _write(out: Path) -> None:
    for name, split, options in (
        ("cityscapes", "train", {"segments": True}),
        ("camvid", "train", {}),
        ("kitti", "train", {}),
        ("ade20k", "train", {}),
        ("coco_panoptic", "train", {"segments": True}),
        ("coco_panoptic", "val", {"segments": True, "seed": 1}),
        ("nyuv2", "train", {"depth": True, "size": (480, 640), "count": 2}),
        ("nyuv2", "test", {"depth": True, "size": (480, 640), "count": 2, "seed": 1}),
    ):
        toy(name, split, **options).write(out)


def toy(name: str, split: str, **options: object) -> Toy:
    """Images of all classes of a dataset that ships, by six colours."""
    names = load_label_space(load_recipe(name)).names
    colours = tuple(number % 6 for number in range(len(names)))
    return Toy(name, names, split=split, colours=colours, **options)  # type: ignore[arg-type]


def _on_toys(command: str) -> list[str]:
    for large, small in _SMALL:
        command = re.sub(large, small, command)
    words = [
        each
        for word in shlex.split(command)[1:]
        for each in (sorted(glob.glob(word)) if word.endswith("/*") else [word])
    ]
    if words[0] in ("train", "compare"):
        if not {"--steps", "--epochs"} & set(words):
            words += ["--steps", "1"]
        if "--set" not in words:
            words.append("--set")
        at = words.index("--set") + 1
        words[at:at] = ["batch_size=2", "crop=32"]
    if words[0] == "compare" and "--print" not in words:
        words.append("--print")
    if words[0] in ("train", "relabel"):  # another run, or other masks, than what a page made before
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    return words


def _shard_images_with_depths(run: Callable[..., Result]) -> None:
    """`my_rgbd`, a dataset of one's own without labels, in ``images-out``: no other command trains on it."""
    layout = 'images = "rgb/{split}/*.png"\ndepth = "depth/{split}/{stem}.png"'
    head = 'name = "my_rgbd"\nreader = "images"\nannotation_type = "image"\ndescriptions = "my_rgbd.csv"'
    Path("my_rgbd.toml").write_text(f'{head}\n[layout]\n{layout}\n[options]\ndepth_unit = "mm"\n')
    Path("my_rgbd.csv").write_text("index,name,description\n0,floor,A floor is what one walks on in a room.\n")
    for number in range(4):
        for kind, mode in (("rgb", "RGB"), ("depth", "I;16")):
            path = Path(f"data/{kind}/train/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((48, 40), 90).convert(mode).save(path)
    result = run("shard", "my_rgbd.toml", "--root", "data", "--split", "train", "--out", "images-out")
    assert result.exit_code == 0, result.stderr


@pytest.fixture
def place(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Toy shards, their bank and its merge, runs of a step, and a photograph, in the current folder."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "shards-out")
    Image.new("RGB", (64, 48), "green").save("photo.jpg")
    _shard_images_with_depths(run)
    sets = [*sorted(path.name for path in Path("shards-out").iterdir()), "my_rgbd.toml"]
    commands = [
        ["embed", *sets, "--encoder", "offline", "--out", "bank"],
        ["embed", *sets, "--encoder", "offline", "--words", "--out", "bank-words"],
        ["merge", "--bank", "bank", "--out", "merge"],
    ]
    for name, shards in _TRAINED.items():
        train = f"train --shards shards-out/{shards} --bank bank --out {name} --preset tiny --steps 1"
        commands.append([*train.split(), "--set", "batch_size=2", "crop=32"])
    for words in commands:
        result = run(*words)
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}\n{result.stderr}"
    shutil.copyfile("merge/taxonomy.csv", "groups.csv")
    return tmp_path


def test_the_pages_run(place: Path, run: Callable[..., Result]) -> None:
    wrong = []
    for page, least in _PAGES.items():
        if page == "methods.md":
            toy("objects365", "train", kind="box").write(Path("shards-out"))
            toy("cityscapes", "unlabeled", kind="image").write(Path("shards-out"))
            (text,) = re.findall(r"`own-crops.toml`:\n\n```toml\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
            Path("own-crops.toml").write_text(text)
            assert run("embed", "objects365", "--encoder", "offline", "--out", "bank").exit_code == 0
        commands = [each for each in _commands(page) if not any(part in each for part in _NOT_RUN)]
        assert len(commands) >= least, page
        for command in commands:
            words = _on_toys(command)
            result = run(*words)
            if result.exit_code:
                wrong.append(f"{page}: {command}\n{shlex.join(words)}\n{result.output}\n{result.stderr}")
    assert not wrong, "\n\n".join(wrong)
