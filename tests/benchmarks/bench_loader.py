"""Images per second of the loader, beside webdataset, MosaicML streaming and LitData, and beside bare JPEG decoding.

    python tests/benchmarks/bench_loader.py
    pip install mosaicml-streaming litdata        # optional: what is not installed is left out

The same JPEGs (1 to 2 megapixels, photograph-like) and the same mask PNGs for all, each in its own format on disk,
read from the page cache. All do the same: short edge 1080 times a factor of 0.5 to 2 (log-uniform), a crop of 640,
flip, colour (0.3), blur (p 0.1), JPEG artefacts (p 0.1), masks nearest, batches of 8; with torchvision's v2 transforms
on uint8 tensors, except in labelmerge. `crop first` is webdataset with what an expert would write: `resized_crop`.
`before a GPU` is what labelmerge's loader does where a GPU trains: colour, blur and the widening of masks to int64 are
left to it. `bare decoding` opens the same JPEGs with Pillow and does nothing else: no masks, no batches.

Every row runs in a process of its own, round after round in turn; the fastest round counts. CPU milliseconds are those
of the process and its workers, until the workers have ended: steadier than seconds on a busy machine.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import json
import math
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

CROP, SHORT_EDGE, SCALE, COLOUR, BATCH = 640, 1080, (0.5, 2.0), 0.3, 8
SIZES = ((1080, 1440), (1080, 1620), (1080, 1920), (1024, 1024), (900, 1600), (1200, 1600))
DISTINCT, QUALITY = 12, 90


# ---- the same augmentation, written with torchvision


def scaled_then_cropped(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scale all of it, then crop: what a pipeline of v2 transforms does."""
    from torchvision.transforms import v2

    height, width = image.shape[-2:]
    factor = drawn_factor(height, width)
    size = [round(height * factor), round(width * factor)]
    image = v2.functional.resize(image, size, antialias=True)
    mask = v2.functional.resize(mask, size, interpolation=v2.InterpolationMode.NEAREST)
    padding = [max(0, CROP - size[1]), max(0, CROP - size[0])]
    if any(padding):
        image = v2.functional.pad(image, [0, 0, *padding], fill=[124.0, 116.0, 104.0])
        mask = v2.functional.pad(mask, [0, 0, *padding], fill=255)
    top = random.randint(0, image.shape[-2] - CROP)
    left = random.randint(0, image.shape[-1] - CROP)
    return image[..., top : top + CROP, left : left + CROP], mask[..., top : top + CROP, left : left + CROP]


def cropped_then_scaled(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Crop what the view shows, then scale that."""
    from torchvision.transforms import v2

    height, width = image.shape[-2:]
    factor = drawn_factor(height, width)
    tall, wide = min(height, round(CROP / factor)), min(width, round(CROP / factor))
    place = [random.randint(0, height - tall), random.randint(0, width - wide), tall, wide]
    size = [min(CROP, round(tall * factor)), min(CROP, round(wide * factor))]
    image = v2.functional.resized_crop(image, *place, size, antialias=True)
    mask = v2.functional.resized_crop(mask, *place, size, interpolation=v2.InterpolationMode.NEAREST)
    padding = [0, 0, CROP - size[1], CROP - size[0]]
    if any(padding):
        image = v2.functional.pad(image, padding, fill=[124.0, 116.0, 104.0])
        mask = v2.functional.pad(mask, padding, fill=255)
    return image, mask


def drawn_factor(height: int, width: int) -> float:
    return math.exp(random.uniform(*map(math.log, SCALE))) * SHORT_EDGE / min(height, width)


class Augment:
    """A sample's picture and mask → uint8 [3, 640, 640], int64 [640, 640]."""

    def __init__(self, crop: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = scaled_then_cropped) -> None:
        from torchvision.transforms import v2

        self.crop = crop
        self.image = v2.Compose(
            [
                v2.ColorJitter(COLOUR, COLOUR, COLOUR),
                v2.RandomApply([v2.GaussianBlur(9, (0.1, 1.5))], 0.1),
                v2.RandomApply([v2.JPEG((25, 90))], 0.1),
            ]
        )

    def __call__(self, picture: Image.Image, labels: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        image, mask = v2.functional.pil_to_tensor(picture), torch.from_numpy(labels.copy())[None]
        image, mask = self.crop(image, mask)
        if random.random() < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return self.image(image), mask[0].long()

    def of_bytes(self, sample: dict[str, bytes]) -> tuple[Tensor, Tensor]:
        picture = Image.open(io.BytesIO(sample["jpg"])).convert("RGB")
        return self(picture, np.asarray(Image.open(io.BytesIO(sample["mask"]))))


# ---- the contestants: each makes batches until nobody asks for more


def labelmerge(data: Path, workers: int, count: int, defer: bool = False) -> Iterator[Any]:
    from labelmerge.loading.augment import Augmentation
    from labelmerge.loading.datasets import group_by_dataset
    from labelmerge.loading.mixture import Mixture
    from labelmerge.shardset.shardset import ShardSet

    augmentation = Augmentation(crop=CROP, short_edge=SHORT_EDGE, scale=SCALE, colour=COLOUR)
    sources = group_by_dataset([ShardSet.open(data / "tars")])
    mixture = Mixture(sources, BATCH, 0, augmentation, cache_mb=0, defer=defer)
    for (batch,) in mixture.batches(0, count, workers=workers):
        yield batch if defer else batch.to(torch.device("cpu"))


def labelmerge_before_a_gpu(data: Path, workers: int, count: int) -> Iterator[Any]:
    return labelmerge(data, workers, count, defer=True)


def webdataset(
    data: Path, workers: int, count: int, crop: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = scaled_then_cropped
) -> Iterator[Any]:
    import webdataset

    augment = Augment(crop)
    masks = webdataset.handle_extension("mask.png", lambda data: np.asarray(Image.open(io.BytesIO(data))))
    tars = sorted(map(str, (data / "tars").glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=False).decode(masks, "pil").to_tuple("jpg", "mask.png")
    batches = samples.map(lambda sample: augment(*sample)).batched(BATCH, partial=False)
    yield from webdataset.WebLoader(batches, batch_size=None, num_workers=workers)


def webdataset_crop_first(data: Path, workers: int, count: int) -> Iterator[Any]:
    return webdataset(data, workers, count, cropped_then_scaled)


def mosaicml_streaming(data: Path, workers: int, count: int) -> Iterator[Any]:
    base: Any = importlib.import_module("streaming").StreamingDataset
    augment = Augment()

    class Samples(base):  # type: ignore[misc]  # Any: it need not be installed
        def __getitem__(self, at: int) -> Any:
            return augment.of_bytes(super().__getitem__(at))

    importlib.import_module("streaming.base.util").clean_stale_shared_memory()
    samples = Samples(local=str(data / "mds"), shuffle=True, batch_size=BATCH)
    yield from DataLoader(samples, BATCH, num_workers=workers, drop_last=True)


def litdata(data: Path, workers: int, count: int) -> Iterator[Any]:
    litdata = importlib.import_module("litdata")
    base: Any = litdata.StreamingDataset
    augment = Augment()

    class Samples(base):  # type: ignore[misc]  # Any: it need not be installed
        def __getitem__(self, at: Any) -> Any:
            return augment.of_bytes(super().__getitem__(at))

    samples = Samples(str(data / "lit"), shuffle=True)
    yield from litdata.StreamingDataLoader(samples, batch_size=BATCH, num_workers=workers, drop_last=True)


class Bare(Dataset[int]):
    def __init__(self, data: Path) -> None:
        self.files = [path.read_bytes() for path in sorted((data / "jpg").iterdir())]

    def __getitem__(self, at: int) -> int:
        Image.open(io.BytesIO(self.files[at % len(self.files)])).load()
        return at


def bare_decoding(data: Path, workers: int, count: int) -> Iterable[Any]:
    return DataLoader(Bare(data), BATCH, sampler=range(count * BATCH), num_workers=workers)


CONTESTANTS: dict[str, tuple[Callable[[Path, int, int], Iterable[Any]], str | None]] = {
    "labelmerge": (labelmerge, None),
    "labelmerge, before a GPU": (labelmerge_before_a_gpu, None),
    "webdataset": (webdataset, "webdataset"),
    "webdataset, crop first": (webdataset_crop_first, "webdataset"),
    "mosaicml-streaming": (mosaicml_streaming, "streaming"),
    "litdata": (litdata, "litdata"),
    "bare decoding": (bare_decoding, None),
}


# ---- the inputs


def write_inputs(data: Path, count: int) -> float:
    """`count` samples in every format that is installed, from `DISTINCT` pictures; returns bits per pixel of JPEG."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from labelmerge.shardset.pixels import png_bytes
    from tests.loading.pictures import jpeg, label_mask, photograph
    from tests.loading.toy_shards import Toy, write_split

    (data / "jpg").mkdir(parents=True)
    pictures = []
    pixels = 0
    for number in range(DISTINCT):
        height, width = SIZES[number % len(SIZES)]
        image = jpeg(photograph(height, width, number, noise=2), quality=QUALITY)
        (data / "jpg" / f"{number:03d}.jpg").write_bytes(image)
        pictures.append((image, png_bytes(label_mask(height, width, 100, number))))
        pixels += height * width
    toy = Toy("photos", tuple(f"class {i}" for i in range(100)), per_shard=-(-count // 4))
    samples = []
    for number in range(count):
        key = f"photos-train-{number:09d}"
        image, mask = pictures[number % DISTINCT]
        meta = json.dumps({"key": key, "present": "[]", "boxes": "[]", "segments": "[]"}).encode()
        samples.append((key, {"jpg": image, "json": meta, "mask.png": mask}))
    write_split(data / "tars", toy, samples)
    if installed("streaming"):
        streaming = importlib.import_module("streaming")
        with streaming.MDSWriter(out=str(data / "mds"), columns={"jpg": "bytes", "mask": "bytes"}) as out:
            for number in range(count):
                out.write(dict(zip(("jpg", "mask"), pictures[number % DISTINCT], strict=True)))
    if installed("litdata"):
        (data / "masks").mkdir()
        for number, (_, mask) in enumerate(pictures):
            (data / "masks" / f"{number:03d}.png").write_bytes(mask)
        # a process of its own: it starts others, and talks on both streams
        command = [sys.executable, __file__, "--lit", str(data), "--batches", str(count // BATCH)]
        subprocess.run(command, check=True, capture_output=True)
    return 8 * sum(len(image) for image, _ in pictures) / pixels


def write_litdata(data: Path, count: int) -> None:
    litdata = importlib.import_module("litdata")
    samples = [(str(data), number) for number in range(count)]
    litdata.optimize(litdata_sample, samples, str(data / "lit"), num_workers=1, chunk_bytes="64MB")


def litdata_sample(which: tuple[str, int]) -> dict[str, bytes]:
    """One sample, as bytes (at the top of the module, because other processes call it)."""
    data, name = Path(which[0]), f"{which[1] % DISTINCT:03d}"
    return {"jpg": (data / "jpg" / f"{name}.jpg").read_bytes(), "mask": (data / "masks" / f"{name}.png").read_bytes()}


def installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


# ---- measuring


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(name: str, data: Path, workers: int, count: int) -> dict[str, float]:
    """Images per second after the first batch, and CPU milliseconds per image of it all."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    make, _ = CONTESTANTS[name]
    for _ in make(data, 0, 1):  # imports, and what is made at the first use
        break
    before, made, first = cpu_seconds(), 0, 0.0
    for _ in make(data, workers, count):
        made += 1
        first = first or time.perf_counter()
    seconds = time.perf_counter() - first
    if made < count // 2:
        raise SystemExit(f"{name} made only {made} batches of {count}")
    # Workers are a few batches ahead when the first one arrives; what they had made by then is not counted as made.
    return {"rate": (made - 1) * BATCH / seconds, "cpu": 1000 * (cpu_seconds() - before) / (made * BATCH)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=24, help="of 8 images, in every row (default 24)")
    parser.add_argument("--rounds", type=int, default=2, help="default 2")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="default 0 2")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "DATA"), help=argparse.SUPPRESS)
    parser.add_argument("--lit", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lit:
        write_litdata(options.lit, options.batches * BATCH)
        return
    if options.one:
        name, data = options.one
        print(json.dumps(measure(name, Path(data), options.workers[0], options.batches)))
        return
    folder = Path(tempfile.mkdtemp())
    try:
        bits = write_inputs(folder, options.batches * BATCH)
        print(f"{DISTINCT} JPEGs of 0.8 to 1.9 megapixels, {bits:.1f} bits per pixel; batches of {BATCH}, crop {CROP}")
        for workers in options.workers:
            print(
                f"\n{f'{workers} workers':26}{'images/s':>10}{'CPU ms':>9}{'speed of labelmerge':>22}{'in CPU ms':>11}"
            )
            best: dict[str, dict[str, float]] = {}
            for _ in range(options.rounds):
                for name in (name for name, (_, module) in CONTESTANTS.items() if installed(module)):
                    command = [sys.executable, __file__, "--one", name, str(folder)]
                    command += ["--workers", str(workers), "--batches", str(options.batches)]
                    run = subprocess.run(command, capture_output=True, text=True)
                    if run.returncode:
                        raise SystemExit(f"{name} failed: {run.stderr.strip().splitlines()[-1]}")
                    found = json.loads(run.stdout.splitlines()[-1])
                    kept = best.setdefault(name, found)
                    best[name] = {"rate": max(kept["rate"], found["rate"]), "cpu": min(kept["cpu"], found["cpu"])}
            ours = best["labelmerge"]
            for name, (_, module) in CONTESTANTS.items():
                if name not in best:
                    print(f"{name:26}not installed ({module})")
                    continue
                rate, cpu = best[name]["rate"], best[name]["cpu"]
                print(f"{name:26}{rate:10.1f}{cpu:9.1f}{ours['rate'] / rate:21.2f}x{cpu / ours['cpu']:10.2f}x")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
