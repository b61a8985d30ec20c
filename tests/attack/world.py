"""A small sound world to damage: a dataset, its shards, a bank, a merge, a run and its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"road": (90, 90, 90), "sky": (120, 170, 230), "car": (200, 30, 30)}
TRAIN = ("--preset", "tiny", "--batch-size", "2", "--crop", "32", "--workers", "0", "--device", "cpu")
STEPS = ("--steps", "2", "--set", "checkpoint_every=1", "--set", "log_every=1")

Command = Callable[..., object]
"""Runs `labelmerge` with these words, and raises where it fails."""


def build(folder: Path, command: Command, *, run: bool) -> None:
    """Make everything in a new folder; training and what needs it only where `run`, for it takes most of the time."""
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "mine.csv"\n'
        '[layout]\nimages = "images/{split}/*.jpg"\nmasks = "labels/{split}/{stem}.png"\n'
    )
    words = ("A road is a way for cars.", "The sky is what lies above.", "A car is a vehicle on four wheels.")
    rows = [f'{n},{name},"{text}"' for n, (name, text) in enumerate(zip(COLOURS, words, strict=True))]
    (folder / "mine.csv").write_text("\n".join(["index,name,description", *rows]) + "\n")
    (folder / "labels.csv").write_text("name,description\nroad,\ndeer,A deer is a wild hoofed animal.\n")
    (folder / "settings.toml").write_text('preset = "tiny"\nlr = 0.001\nseed = 3\n')
    rng = np.random.default_rng(0)
    palette = np.array(list(COLOURS.values()), np.uint8)
    for number in range(4):
        mask = np.repeat(np.repeat(rng.integers(0, 3, (5, 6), dtype=np.uint8), 8, 0), 8, 1)
        image = Image.fromarray(palette[mask] + rng.integers(0, 20, (*mask.shape, 3), dtype=np.uint8))
        for split in ("train", "val"):
            for kind, picture, ending in (("images", image, "jpg"), ("labels", Image.fromarray(mask), "png")):
                path = folder / "data" / kind / split / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path) if split == "val" else picture.save(path)
    shards, bank, out = folder / "shards", folder / "bank", folder / "run"
    command("embed", folder / "mine.toml", "--encoder", "offline", "--out", bank)
    for split in ("train", "val"):
        command("shard", folder / "mine.toml", "--root", folder / "data", "--split", split, "--out", shards)
    if run:
        command("merge", "--bank", bank, "--out", folder / "merge")
        command("train", "--shards", shards, "--bank", bank, "--out", out, *TRAIN, *STEPS)
        command("eval", "--checkpoint", out, "--shards", shards, "--out", out / "results.json", "--device", "cpu")
