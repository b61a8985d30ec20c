"""Two million samples in nine sets: what starting, planning batches and resuming take, in time and memory.

    python tests/benchmarks/bench_scale.py [--samples 2000000] [--shard 250] [--folder /a/disk]

The manifests and the tars' headers are those of so many samples; the images are tiny, and the shards of a dataset are
hard links to one file, so only a few megabytes are written. Everything is deleted at the end. Each line is the time of
one stage, one after the other in one process as in a run, and the process's resident memory after it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from labelmerge.methods.method import find_method
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs

T = TypeVar("T")
SETS, LABELS = 9, 100
STEPS = 160_000
_TESTS = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Two million samples through start-up, planning and resume.")
    parser.add_argument("--samples", type=int, default=2_000_000, help="in all sets together")
    parser.add_argument("--shard", type=int, default=250, help="samples in a shard")
    parser.add_argument("--folder", type=Path, help="where to write; by default the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shards = write(Path(folder), options.samples, options.shard)
        print(f"{options.samples:,} samples in {shards:,} shards of {SETS} datasets\n".replace("\\\n", "\n"))
        print("| stage | time | resident memory |\n|---|---|---|".replace("\\\n", "\n"), flush=True)
        tell("imports", 0.0)
        config = TrainConfig(batch_size=18, crop=64, steps=STEPS)
        paths = [Path(folder) / "shards"]
        inputs = stage(
            "start-up: manifests, columns, the order",
            lambda: read_inputs(paths, Path(folder) / "bank", "train", config, find_method("ssiw"), Ranks()),
        )
        mixture = inputs.mixture
        stage("the first batch", lambda: mixture.batch(0))
        stage("the second batch", lambda: mixture.batch(1))
        stage("planning 10,000 batches", lambda: [mixture.slots(step) for step in range(10_000)])
        stage(f"resuming at step {STEPS - 10_000:,}: its batch", lambda: mixture.batch(STEPS - 10_000))
        stage("every shard's index, as a loading process holds it in the end", lambda: every_index(mixture.sources))


def every_index(sources: object) -> None:
    for source in sources:  # type: ignore[attr-defined]
        for shard_set in source.sets:
            for shard in range(len(shard_set._names)):
                shard_set._shard_index(shard)


def stage(name: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = work()
    tell(name, time.perf_counter() - began)
    return result


def tell(name: str, seconds: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    resident = pages * resource.getpagesize() / 2**20
    print(f"| {name} | {seconds:.2f} s | {resident:.0f} MiB |", flush=True)


def write(folder: Path, samples: int, per_shard: int) -> int:
    """The shards and a bank; returns how many shards there are."""
    toys = runpy.run_path(str(_TESTS / "loading/toy_shards.py"))
    names = tuple(f"class {number}" for number in range(LABELS))
    made = [
        toys["Toy"](
            f"set{number}", names, count=per_shard, size=(8, 8), colours=(0, 1, 2, 3, 4) * 20, per_shard=per_shard
        )
        for number in range(SETS)
    ]
    count = -(-samples // SETS // per_shard)
    for toy in made:
        split = toy.write(folder / "shards")
        manifest = json.loads((split / "manifest.json").read_text())
        (first,) = manifest["shards"]
        manifest["shards"] = [{**first, "name": f"{toy.name}-train-{number:06d}.tar"} for number in range(count)]
        for shard in manifest["shards"][1:]:
            os.link(split / first["name"], split / shard["name"])
        manifest["counts"] = {"found": count * per_shard, "written": count * per_shard, "skipped": 0}
        (split / "manifest.json").write_text(json.dumps(manifest))
    toys["toy_bank"](made, 512).save(folder / "bank")
    return count * SETS


if __name__ == "__main__":
    main()
