"""Masks as PNG: `labelmerge.shardset.pixels.png_bytes` beside Pillow, to write and to read.

    python tests/benchmarks/bench_masks.py [--masks labelIds.png …]

The masks are generated (`bench_shard.regions`), or real ones that are named. Times are CPU milliseconds, the least of
several runs; reading is Pillow's decoding for both.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_shard import regions  # type: ignore[import-not-found]  # the script beside this one
from PIL import Image

from labelmerge.sharding.pictures.images import Array, read_indices
from labelmerge.shardset.pixels import png_bytes

ROUNDS = 7


def pillow(values: Array) -> bytes:
    """What Pillow makes of a mask by default."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of the fastest run."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", nargs="*", type=Path, default=[], help="index PNGs of your own")
    given = parser.parse_args()
    drawn = regions(np.random.default_rng(0), 1024, 2048)
    masks = {"generated, 8 bit": drawn.astype(np.uint8), "generated, 16 bit": drawn.astype(np.uint16)}
    masks |= {path.name: read_indices(path) for path in given.masks}
    print("| mask | size | encoder | write ms | read ms | bytes |\n|---|---|---|---|---|---|")
    for name, values in masks.items():
        for encoder, encode in (("Pillow", pillow), ("labelmerge", png_bytes)):
            data = encode(values)
            written = milliseconds(lambda encode=encode, values=values: encode(values))  # type: ignore[misc]
            read = milliseconds(lambda data=data: Image.open(io.BytesIO(data)).load())  # type: ignore[misc]
            size = f"{values.shape[1]} x {values.shape[0]}"
            print(f"| {name} | {size} | {encoder} | {written:.1f} | {read:.1f} | {len(data)} |")


if __name__ == "__main__":
    main()
