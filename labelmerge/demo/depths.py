"""The toy village with depths: what a scene says about how far things are, as a dataset of one's own with shards.

The ground is a plane: how far it is follows from how far below the horizon it is seen. A thing is as far as the ground
that it stands on, and none is farther than one that was painted before it. The sky is farthest, a wall stands where the
ground in front of it ends. So depth is next to given by what a pixel is and where it is seen, which flatters a network
that is told what it is.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.demo.demo import claim
from labelmerge.demo.layout import encode_image, png, with_void
from labelmerge.demo.scenes import Scene
from labelmerge.demo.worlds import WORLDS, draw_samples
from labelmerge.files import write_bytes, write_text
from labelmerge.progress import Track, no_track

DATASET = "village"
SPLITS = {"train": 120, "val": 60}
"""How many images each has."""

_NEAREST = 1000  # the value of what stands at the lower border
_LEAST_BELOW = 0.1  # of the way from the horizon to the lower border: nearer to it, all is equally far
_SKY = 1.25  # times the farthest ground
_BACKDROPS = ("sky", "interior_wall")


def scene_depth(scene: Scene, things: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16]:
    """The depth of every pixel, ``[H, W]``, in units of its own (``relative``); 0 where nothing was painted.

    Args:
        things: which of the scene's things is seen at each pixel.
    """
    rows = (np.arange(scene.height) + 0.5) / scene.height
    plane = 1 / np.maximum((rows - scene.horizon) / (1 - scene.horizon), _LEAST_BELOW)  # of the ground, by row
    depth = np.zeros((scene.height, scene.width))
    nearest = np.inf
    for number, thing in enumerate(scene.things):
        seen = things == number
        if thing.countable:
            foot = max(part.points[:, 1].max() for part in thing.parts)
            row = int(np.clip(np.ceil(foot) - 1, 0, scene.height - 1))
            nearest = min(nearest, float(plane[row]))
            depth[seen] = nearest
        elif thing.concept not in _BACKDROPS:
            depth[seen] = np.broadcast_to(plane[:, None], depth.shape)[seen]
        elif thing.concept == "sky":
            depth[seen] = _SKY / _LEAST_BELOW
        else:
            floors = [each for each in scene.things if not each.countable and each.concept not in _BACKDROPS]
            top = min((part.points[:, 1].min() for each in floors for part in each.parts), default=scene.height - 1)
            depth[seen] = plane[int(np.clip(top, 0, scene.height - 1))]
    return np.rint(depth * _NEAREST).astype(np.uint16)


def write_village(out: Path, seed: int, track: Track = no_track) -> Path:
    """Draw the village and its depths into ``<out>/village``; its recipe lies beside it.

    Returns:
        The recipe, for `labelmerge shard`.

    Raises:
        OutputError: something can't be written.
    """
    text = files("labelmerge.demo").joinpath("village.toml").read_text(encoding="utf-8")
    text = text.replace('role = "eval"\n', "").replace("(toy, held out)", "(toy, with depths)")
    masks = 'masks = "masks/{split}/{stem}.png"\n'
    depths = 'depth = "depth/{split}/{stem}.png"\n\n[options]\ndepth_unit = "relative"\n'
    text = text.replace(masks, masks + depths)
    recipe = out / f"{DATASET}.toml"
    write_text(recipe, text)
    write_bytes(out / f"{DATASET}.csv", files("labelmerge.demo").joinpath("village.csv").read_bytes())
    quality, first = WORLDS[DATASET].quality, 0
    for split, count in SPLITS.items():
        samples = draw_samples(DATASET, out, count, seed, first)
        first += count
        for sample in track(samples, f"drawing {DATASET} {split} with depths", count):
            name = f"walk-{sample.number:03d}"
            pictures = {
                f"images/{split}/{name}.jpg": encode_image(sample.image, quality),
                f"masks/{split}/{name}.png": png(Image.fromarray(with_void(sample.classes, 255))),
                f"depth/{split}/{name}.png": png(Image.fromarray(scene_depth(sample.scene, sample.things))),
            }
            for path, data in pictures.items():
                write_bytes(out / DATASET / path, data)
    return recipe


def run_depth_demo(out: Path, *, seed: int = 0, track: Track = no_track) -> dict[str, Any]:
    """The village with depths, in shards, and a bank of its labels: what a comparison of depths needs.

    Args:
        out: a new folder, or that of an earlier demo, whose content is replaced.

    Returns:
        The folders of shards and bank.

    Raises:
        OutputError: `out` holds something other than a demo, or can't be written.
    """
    from labelmerge.catalog import load_recipe
    from labelmerge.embed.embed import embed_labels
    from labelmerge.sharding.shard import shard

    claim(out)
    recipe = load_recipe(write_village(out / "worlds", seed, track))
    embed_labels([recipe], out / "bank", encoder="offline", track=track)
    for split in SPLITS:
        shard(recipe, out / "worlds" / DATASET, split, out / "shards", track=track)
    return {"shards": str(out / "shards"), "bank": str(out / "bank"), "images": dict(SPLITS)}
