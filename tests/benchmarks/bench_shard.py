"""`labelmerge shard` beside Datumaro's converter, and beside the floor: reading the files and writing a plain tar.

    python -m venv other && other/bin/pip install "datumaro[cli]"
    python tests/benchmarks/bench_shard.py --datum other/bin/datum

Three inputs are generated: photograph-like noise at 1 to 2 megapixels with masks of some tens of regions,

- `cityscapes`: PNG images and label ids, which have to be mapped to classes;
- `bdd100k`: JPEG images and masks that already hold the class indices;
- `coco_panoptic`: JPEG images, RGB panoptic PNGs and their JSON.

Every command runs as a process of its own, start-up included, one after the other on the same files, `--rounds` times;
the fastest round counts. CPU seconds are user + system of the process and its children, and are steadier than wall time
on a busy machine. Peak memory is the largest resident set of any one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import load_descriptions, load_recipe

SIZES = {"cityscapes": (1024, 2048), "bdd100k": (720, 1280), "coco_panoptic": (1000, 1400)}
REGIONS = 40
# What Datumaro is asked to make of both of its inputs: masks as PNGs again, and the images beside them.
DATUMARO = ("cityscapes", "coco_panoptic")
TARGET = "coco_panoptic"
FLOOR = """
import sys, tarfile, os
out = open(sys.argv[1], "wb")
with tarfile.open(fileobj=out, mode="w") as tar:
    for path in sys.stdin.read().split("\\n"):
        tar.add(path, path.rsplit("/", 1)[-1])
out.flush()
os.fsync(out.fileno())
"""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds, and bytes of resident memory at most."""

    wall: float
    cpu: float
    memory: int


def photograph(random: np.random.Generator, height: int, width: int) -> Image.Image:
    """Noise that has a photograph's spectrum, more or less: coarse colours, finer structure, sensor noise."""
    layers = [
        (Image.fromarray(random.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)), weight)
        for scale, weight in ((128, 0.6), (16, 0.25), (4, 0.1))
    ]
    total = np.zeros((height, width, 3), np.float32)
    for layer, weight in layers:
        total += weight * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    total += random.normal(6, 3, (height, width, 1)).astype(np.float32)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def regions(random: np.random.Generator, height: int, width: int) -> Array:
    """[H, W] of region numbers from 0: overlapping ellipses on a coarse grid, as large as things in a street."""
    small = np.zeros((height // 4, width // 4), np.int32)
    y, x = np.mgrid[: height // 4, : width // 4]
    for number in range(1, REGIONS):
        centre = random.uniform(0, 1, 2) * small.shape
        radius = random.uniform(0.02, 0.25, 2) * small.shape
        small[((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1] = number
    return np.kron(small, np.ones((4, 4), np.int32))


def generate(root: Path, dataset: str, count: int) -> Iterator[Path]:
    """Write a dataset in its official layout; the files that hold its samples."""
    random = np.random.default_rng(0)
    height, width = SIZES[dataset]
    records: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    names = [row.name for row in load_descriptions(load_recipe(dataset))]
    recipe = load_recipe(dataset)
    for number in range(count):
        picture, areas = photograph(random, height, width), regions(random, height, width)
        if dataset == "cityscapes":
            ids = np.array([int(value) for value in recipe.ids["map"]] + recipe.ids["ignore"])
            stem = f"aachen/aachen_{number:06d}_000019"
            image = root / f"leftImg8bit/train/{stem}_leftImg8bit.png"
            mask = root / f"gtFine/train/{stem}_gtFine_labelIds.png"
            label = Image.fromarray(ids[areas % len(ids)].astype(np.uint8))
        elif dataset == "bdd100k":
            image = root / f"bdd100k/images/10k/train/{number:08x}-00000000.jpg"
            mask = root / f"bdd100k/labels/sem_seg/masks/train/{number:08x}-00000000.png"
            label = Image.fromarray(np.array([*range(19), 255], np.uint8)[areas % 20])
        else:
            image = root / f"train2017/{number:012d}.jpg"
            mask = root / f"annotations/panoptic_train2017/{number:012d}.png"
            ids = random.choice(1 << 24, REGIONS, replace=False)
            ids[0] = 0
            stored = ids[areas]
            label = Image.fromarray(np.stack([stored & 255, stored >> 8 & 255, stored >> 16], -1).astype(np.uint8))
            present = [int(value) for value in np.unique(areas) if value]
            segments = [
                {"id": int(ids[k]), "category_id": 1 + k % len(names), "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
                for k in present
            ]
            records["images"].append({"id": number, "file_name": image.name, "height": height, "width": width})
            records["annotations"].append({"image_id": number, "file_name": mask.name, "segments_info": segments})
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(image, quality=92)
        label.save(mask)
        yield from (image, mask)
    if records["images"]:
        records["categories"] = [
            {"id": k + 1, "name": name, "isthing": 1, "supercategory": ""} for k, name in enumerate(names)
        ]
        (root / "annotations/panoptic_train2017.json").write_text(json.dumps(records))


def for_datumaro(root: Path, dataset: str, view: Path) -> None:
    """The same files as Datumaro expects them: Cityscapes with train ids, COCO with a folder of images."""
    if dataset == "coco_panoptic":
        (view / "images").mkdir(parents=True)
        (view / "images/train2017").symlink_to(root / "train2017")
        (view / "annotations").symlink_to(root / "annotations")
        return
    recipe = load_recipe(dataset)
    names = [row.name for row in load_descriptions(recipe)]
    table = np.full(256, 255, np.uint8)
    for value, name in recipe.ids["map"].items():
        table[int(value)] = names.index(name)
    view.mkdir()
    (view / "leftImg8bit").symlink_to(root / "leftImg8bit")
    for path in root.rglob("*_labelIds.png"):
        target = view / path.relative_to(root).with_name(path.name.replace("labelIds", "labelTrainIds"))
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table[np.asarray(Image.open(path))]).save(target)


def measure(command: list[str], text: str | None = None) -> Cost:
    """Run a command to its end; what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    # A process of its own in between, so that the peak is this command's and not that of an earlier child.
    code = (
        "import json,resource,subprocess,sys;"
        "r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.PIPE);"
        "sys.stderr.buffer.write(r.stderr);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(r.returncode)"
    )
    # Installed commands have their bytecode beside them; a checkout has it after its first run, if it may be written.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], input=text, capture_output=True, text=True, env=environment
    )
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, int(done.stdout) * 1024)


def best(rounds: int, run: Callable[[], Cost]) -> Cost:
    """The least of several rounds, each figure by itself."""
    costs = [run() for _ in range(rounds)]
    return Cost(min(c.wall for c in costs), min(c.cpu for c in costs), min(c.memory for c in costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="of each input")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--datum", metavar="FILE", help="the datum command of an installed Datumaro")
    parser.add_argument("--inputs", nargs="+", choices=sorted(SIZES), default=sorted(SIZES))
    parser.add_argument("--workers", type=int, default=2, help="for the run with several processes")
    given = parser.parse_args()

    print(f"{given.images} images of each input, {given.rounds} rounds, {os.cpu_count()} CPUs\n")
    columns = (
        "input",
        "command",
        "wall s",
        "CPU s",
        "images/s",
        "images/CPU s",
        "CPU ÷ floor",
        "wall ÷ alone",
        "peak MB",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for dataset in given.inputs:
        with tempfile.TemporaryDirectory(prefix="bench-shard-") as scratch:
            root, out = Path(scratch) / "in", Path(scratch) / "out"
            files = [str(path) for path in generate(root, dataset, given.images)]

            def fresh(command: list[str], text: str | None = None, out: Path = out) -> Cost:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                return measure(command, text)

            shard = [sys.executable, "-m", "labelmerge.cli", "shard", dataset, "--root", str(root), "--split", "train"]
            shard += ["--out", str(out), "--samples-per-shard", "50"]
            commands = {
                "read and write a tar (floor)": ([sys.executable, "-c", FLOOR, str(out / "all.tar")], "\n".join(files)),
                "labelmerge shard": (shard, None),
                f"labelmerge shard --workers {given.workers}": ([*shard, "--workers", str(given.workers)], None),
            }
            if given.datum and dataset in DATUMARO:
                view = Path(scratch) / "datumaro"
                for_datumaro(root, dataset, view)
                convert = [given.datum, "convert", "-if", dataset, "-i", str(view), "-f", TARGET, "-o", str(out / "d")]
                commands["datum convert"] = ([*convert, "--", "--save-media"], None)
            costs = {
                name: best(given.rounds, lambda c=command, t=text: fresh(c, t))  # type: ignore[misc]
                for name, (command, text) in commands.items()
            }
            floor, alone = costs["read and write a tar (floor)"], costs["labelmerge shard"]
            for name, cost in costs.items():
                print(
                    f"| {dataset} | {name} | {cost.wall:.1f} | {cost.cpu:.1f} | {given.images / cost.wall:.1f} | "
                    f"{given.images / cost.cpu:.1f} | {cost.cpu / floor.cpu:.2f} | {cost.wall / alone.wall:.2f} | "
                    f"{cost.memory / 1e6:.0f} |"
                )


if __name__ == "__main__":
    main()
