"""Peak memory of `labelmerge shard objects365`, for an annotation file and for one twice as large.

    python tests/benchmarks/bench_memory.py --size 1 --folder /a/disk/with/space

writes an Objects365-like JSON of `--size` GB and its images (tiny, hard links to a few), runs the command on it in a
process of its own, does the same at twice the size, and prints peak memory and time of both. The boxes of an image are
scattered over the whole file, which is the worst case. Peak memory is the largest sum over all processes of the
command of what they hold in RAM (VmRSS, so what they share counts several times), looked at 20 times a second.
Everything that was written is deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import numpy as np
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe

BOXES = 200  # of each image, on average
BYTES_PER_BOX = 200
PICTURES = 50
HEIGHT, WIDTH = 48, 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of `labelmerge shard objects365`.")
    parser.add_argument("--size", type=float, default=1.0, help="GB of the smaller JSON")
    parser.add_argument("--folder", type=Path, help="where to write; by default the system's temporary folder")
    arguments = parser.parse_args()
    print(f"{'JSON':>9} {'images':>8} {'boxes':>10} {'shards':>9} {'peak memory':>12} {'time':>7}")
    for size in (arguments.size, 2 * arguments.size):
        with TemporaryDirectory(dir=arguments.folder) as folder:
            root, out = Path(folder, "root"), Path(folder, "out")
            images = write(root, round(size * 1e9))
            start = time.monotonic()
            peak = run("shard", "objects365", "--root", str(root), "--split", "train", "--out", str(out))
            seconds = time.monotonic() - start
            manifest = json.loads((out / "objects365/train/manifest.json").read_text())
            assert manifest["counts"]["written"] == images, manifest["counts"]
            boxes = sum(manifest["class_boxes"].values())
            gigabytes = (root / "zhiyuan_objv2_train.json").stat().st_size / 1e9
            shards = sum(shard["bytes"] for shard in manifest["shards"]) / 1e9
            print(
                f"{gigabytes:6.2f} GB {images:8} {boxes:10} {shards:6.2f} GB {peak / 2**20:8.0f} MiB {seconds:5.0f} s",
                flush=True,
            )


def write(root: Path, size: int) -> int:
    """Make a dataset whose JSON has about so many bytes; how many images it has."""
    count = max(1, size // (BOXES * BYTES_PER_BOX))
    names = [f"patch{number % 51}/objects365_v2_{number:08d}.jpg" for number in range(count)]
    write_images(root / "train", names)
    with (root / "zhiyuan_objv2_train.json").open("w") as file:
        file.write('{"images": [')
        file.write(", ".join(image_record(number, name) for number, name in enumerate(names)))
        file.write('], "annotations": [')
        for number, record in enumerate(box_records(count, BOXES * count)):
            file.write(f", {record}" if number else record)
        categories = [
            {"id": number, "name": name}
            for number, name in enumerate(load_label_space(load_recipe("objects365")).names, 1)
        ]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return count


def write_images(folder: Path, names: list[str]) -> None:
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(PICTURES):
        path = folder / f"picture{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = BytesIO()
        Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(data, "JPEG")
        path.write_bytes(data.getvalue())
        pictures.append(path)
    for number, name in enumerate(names):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        os.link(pictures[number % PICTURES], target)


def image_record(number: int, name: str) -> str:
    return (
        f'{{"height": {HEIGHT}, "id": {number}, "license": 5, "width": {WIDTH}, "file_name": "images/v2/{name}", '
        '"url": ""}'
    )


def box_records(images: int, count: int) -> Iterator[str]:
    generator = random.Random(0)
    number = generator.random
    for identity in range(count):
        x, y, width, height = WIDTH * number(), HEIGHT * number(), 9 * number(), 9 * number()
        yield (
            f'{{"id": {identity}, "iscrowd": 0, "isfake": 0, "area": {width * height!r}, "isreflected": 0, '
            f'"bbox": [{x!r}, {y!r}, {width!r}, {height!r}], "image_id": {int(images * number())}, '
            f'"category_id": {1 + int(365 * number())}}}'
        )


def run(*arguments: str) -> int:
    """Run a labelmerge command; the peak memory of all its processes together, in bytes."""
    command = [sys.executable, "-m", "labelmerge.cli", *arguments]
    peak = 0
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, sum(map(memory, family(process.pid))))
            time.sleep(0.05)
        if process.returncode:
            output.seek(0)
            raise SystemExit(output.read().splitlines()[-1])
    return peak


def family(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    try:
        for task in os.listdir(f"/proc/{process}/task"):
            for child in Path(f"/proc/{process}/task/{task}/children").read_text().split():
                yield from family(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended


def memory(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
