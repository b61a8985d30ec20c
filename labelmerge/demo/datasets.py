"""The toy datasets on disk, each as the dataset that it stands for lies there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from labelmerge.demo.layouts import LAYOUTS
from labelmerge.demo.worlds import WORLDS, draw_samples
from labelmerge.errors import OutputError
from labelmerge.files import write_bytes
from labelmerge.progress import Track, no_track


def write_world(dataset: str, root: Path, images: int, seed: int, *, first: int = 0) -> None:
    """Write one toy dataset, whose folder is `root`; the rest as in `write_worlds`."""
    layout = LAYOUTS[dataset](root, WORLDS[dataset], seed)
    for sample in draw_samples(dataset, root, images, seed, first):
        layout.add(sample)
    layout.close()


def write_worlds(out: Path, images: int, seed: int, track: Track = no_track, *, first: int = 0) -> dict[str, Path]:
    """Write all toy datasets; returns the root of each, as `labelmerge shard --root` takes it.

    Args:
        out: a folder; each dataset gets its own folder in it.
        images: how many images each dataset has.
        seed: of the world: other seeds give other looks.
        track: progress, one step for each image.
        first: the number of the first image; with `images` of an earlier call, more images of the same world.

    Raises:
        OutputError: something can't be written, or is in the way.
    """
    roots = {dataset: out / dataset for dataset in WORLDS}
    for root in roots.values():
        if root.exists():
            raise OutputError("already exists", where=root, fix="Choose another folder, or remove it")
    write_bytes(out / "village.toml", files("labelmerge.demo").joinpath("village.toml").read_bytes())
    write_bytes(out / "village.csv", files("labelmerge.demo").joinpath("village.csv").read_bytes())
    todo = ((dataset, sample) for dataset in WORLDS for sample in draw_samples(dataset, out, images, seed, first))
    layouts = {dataset: LAYOUTS[dataset](root, WORLDS[dataset], seed) for dataset, root in roots.items()}
    for dataset, sample in track(todo, "drawing nine toy datasets and two to test on", images * len(WORLDS)):
        layouts[dataset].add(sample)
    for layout in layouts.values():
        layout.close()
    return roots
