"""LMSeg against its baselines and without its parts, on toy worlds: PQ, mIoU, and mIoU with one list for all sets.

    python tests/benchmarks/bench_lmseg.py main --out bench-out [--seeds 3] [--steps 400] [--device cuda]
    python tests/benchmarks/bench_lmseg.py parts --out bench-out [--rows NAME…] [--results FILE]
    python tests/benchmarks/bench_lmseg.py methods --out bench-out [--also FILE…]

Draws Cityscapes and COCO panoptic (with segments) and ADE20K (without), and runs a `labelmerge compare` in each world,
whose command is printed. Measured on images that training did not see. Prints Markdown with the mean and standard
deviation over the worlds; rows that the results or files of other machines (--also) have are not run again, and with
`--seeds 0` nothing is. `--print` draws the worlds and prints the commands.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from kept import Kept  # type: ignore[import-not-found]  # the file beside this one

from labelmerge.demo.datasets import write_world
from labelmerge.demo.worlds import WORLDS, recipe_of
from labelmerge.embed.embed import embed_labels
from labelmerge.sharding.shard import shard

SETS = ("cityscapes", "coco_panoptic", "ade20k")
IMAGES, FRESH = 200, 60  # of each dataset
WHOLE = "[views.cityscapes]\ncrop = [64, 128]\n"  # the set's images are twice as wide as high
BASE = {"labels": "all", "batch_size": 12, "crop": 64, "lr": "3e-3", "warmup": 20}

VARIANTS = {
    "main": {
        "lmseg": "classifier=text",
        "no text attention": "classifier=text+text_attention=false",
        "multi-head": "classifier=heads",
        "name union": "classifier=union+merge=name",
    },
    "parts": {
        "words before image": "classifier=text+attention_order=text-visual",
        "void is negative": "classifier=text+void=negative",
        "queries for each label space": "classifier=text+space_queries=true",
        "lists of labels that occur": "classifier=text+labels=seen",
        "name union of vectors": "classifier=text+merge=name",
        "views of their own": "classifier=text+config={views}",
    },
    "methods": {
        "ssiw": "method=ssiw",
        "ssiw, paper": "method=ssiw+merge=text+negatives=all",
        "usss, joint": "method=usss+cross_weight=0+within_weight=0",
    },
}


def draw(root: Path, seed: int) -> None:
    """Draw, shard and embed what is not there yet."""
    for part, count, first in (("train", IMAGES, 0), ("fresh", FRESH, IMAGES)):
        for dataset in SETS:
            folder = root / part / "worlds" / dataset
            if (root / part / "shards" / dataset).is_dir():
                continue
            write_world(dataset, folder, count, seed, first=first)
            shard(recipe_of(dataset, folder), folder, WORLDS[dataset].split, root / part / "shards")
    if not (root / "bank").is_dir():
        embed_labels([recipe_of(dataset, root) for dataset in SETS], root / "bank", encoder="offline")


def command(root: Path, what: str, seed: int, steps: int, rows: list[str], device: str) -> list[str]:
    """The words of one world's comparison."""
    shards, fresh = ([str(root / part / "shards" / dataset) for dataset in SETS] for part in ("train", "fresh"))
    settings: dict[str, Any] = {**BASE, "steps": steps, "checkpoint_every": steps, "seed": seed}
    lmseg = what != "methods"  # the others know no segments
    if lmseg:
        settings["segment_score"] = 0.5
    if what == "parts" or any("labels=" in VARIANTS[what][row] for row in rows):
        del settings["labels"]
    views = root / "views.toml"
    vary = [VARIANTS[what][row].format(views=views) for row in rows]
    if any(f"config={views}" in each for each in vary):
        views.write_text(WHOLE)
    if "labels" not in settings:
        vary = [each if "labels=" in each else f"{each}+labels=all" for each in vary]
    return [
        "labelmerge", "compare", "--shards", *shards, "--bank", str(root / "bank"),
        *(["--method", "lmseg", "--eval-task", "panoptic"] if lmseg else []),
        "--eval-shards", *fresh, "--eval-mixed", "--out", str(root / f"{what}-{steps}"),
        "--device", device, "--set", *(f"{key}={value}" for key, value in settings.items()), "--vary", *vary,
    ]  # fmt: skip


def figures(folder: Path) -> dict[str, float]:
    """The figures of one run: PQ of the sets with segments, mIoU of all, each their mean; in per cent."""
    sets = json.loads((folder / "results.json").read_text())["sets"]
    found: dict[str, list[float]] = {}
    for each in sets:
        found.setdefault("mIoU", []).append(each["miou"])
        found.setdefault("labelled mIoU", []).append(each["miou_labelled"])
        for group in ("all", "things", "stuff"):
            if "panoptic" in each:
                found.setdefault(f"PQ {group}", []).append(each["panoptic"][group]["pq"])
        if "mixed" in each:
            found.setdefault("mixed mIoU", []).append(each["mixed"]["miou"])
        if "panoptic" in each.get("mixed", {}):
            found.setdefault("mixed PQ", []).append(each["mixed"]["panoptic"]["all"]["pq"])
    return {key: sum(values) / len(values) for key, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(VARIANTS))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many worlds; default 3")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first world; default 0")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="of each run; default 400")
    parser.add_argument("--rows", nargs="+", metavar="NAME")
    parser.add_argument("--device", default="cpu", metavar="DEVICE")
    parser.add_argument("--results", type=Path, metavar="FILE", help="default: WHAT-STEPS.json below --out")
    parser.add_argument("--also", type=Path, nargs="+", default=(), metavar="FILE", help="results made elsewhere")
    parser.add_argument("--print", action="store_true", help="print the commands, and run nothing")
    options = parser.parse_args()
    rows = options.rows or list(VARIANTS[options.what])
    kept = Kept.open(options.results or options.out / f"{options.what}-{options.steps}.json", options.also)
    for seed in range(options.first, options.first + options.seeds):
        left = [row for row in rows if not kept.has(seed, row)]
        if not left:
            continue
        root = options.out / f"world-{seed}"
        draw(root, seed)
        words = command(root, options.what, seed, options.steps, left, options.device)
        print(shlex.join(words), flush=True)
        if options.print:
            continue
        program = [sys.executable, "-m", "labelmerge"]
        done = subprocess.run([*program, *words[1:], "--json"], check=True, stdout=subprocess.PIPE)
        variants = json.loads(done.stdout)["variants"]
        for row, variant in zip(left, variants, strict=True):
            kept.add(seed, row, figures(Path(variant["folder"])), options.device)
    columns = ["PQ all", "PQ things", "PQ stuff", "mIoU", "labelled mIoU", "mixed mIoU", "mixed PQ"]
    print("\n" + kept.table(rows, columns, f"%, {options.steps} steps"))


if __name__ == "__main__":
    main()
