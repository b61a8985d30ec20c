"""The depth of every pixel of any image, as a 16-bit PNG and as a picture to look at."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge import __version__
from labelmerge.bank.bank import Bank
from labelmerge.device import choose_device
from labelmerge.errors import BankError, CheckpointError, SampleError, UsageError
from labelmerge.files import whole_or_nothing, write_bytes, write_json
from labelmerge.methods.method import find_method
from labelmerge.methods.predictor import LabelList, Predictor
from labelmerge.methods.restore import Trained, load_trained
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.model.views import Views
from labelmerge.predict.images import find_images
from labelmerge.predict.predict import places_of, read_photo
from labelmerge.progress import Track, no_track
from labelmerge.shardset.pixels import png_bytes

FORMAT = "labelmerge-depth/1"
_FARTHEST = 65535
_MEANING = (
    "1 is the image's nearest depth and 65535 its farthest, as the model sees them, and differences between are in "
    "proportion; scale and shift are the image's own and not known"
)
# From far to near: dark blue, purple, red, orange, light yellow; each lighter than the one before.
_RAMP = np.array([[20, 12, 60], [106, 32, 128], [198, 62, 84], [247, 148, 44], [252, 250, 176]], dtype=np.float64)

_AS_TRAINED = Views()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DepthPrediction:
    """What was written for one image."""

    image: Path
    depth: Path
    picture: Path
    about: Path


@dataclass(frozen=True)
class DepthPredictions:
    """What `predict_depths` did: an entry for each image, and path and reason of those that failed."""

    written: tuple[DepthPrediction, ...]
    failed: tuple[tuple[str | Path, str], ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "written": [{name: str(path) for name, path in vars(entry).items()} for entry in self.written],
            "failed": [{"image": str(path), "reason": reason} for path, reason in self.failed],
        }


def gives_depth(checkpoint: Path) -> bool:
    """Whether a run or checkpoint gives depths in place of labels. Raises CheckpointError, ConfigError."""
    return find_method(load_checkpoint(checkpoint).method).answers == "depth"


def predict_depths(
    images: Sequence[str | Path],
    checkpoint: Path,
    out: Path,
    *,
    labeller: Path | None = None,
    views: Views = _AS_TRAINED,
    device: str | None = None,
    track: Track = no_track,
) -> DepthPredictions:
    """The depths of images, up to a scale and a shift that are each image's own.

    For each image, `out` then holds ``<stem>_depth.png``, 16 bit, which grows with the distance; ``<stem>_depth.jpg``,
    a picture of it, near light and far dark; and ``<stem>_depth.json``. Photographs are turned as their EXIF
    orientation says, and so are the outputs.

    Args:
        images: as `labelmerge.predict.predict.predict` takes them.
        checkpoint: a run that gives depths, or a checkpoint of it.
        labeller: a run that labels pixels, for one of depths that takes labels as its second input. It is asked for the
            labels that that one was trained with.
        views: how images are shown to the models.

    Raises:
        UsageError: no image is there, or one would be overwritten; the run gives no depths; there is no labeller where
            one is needed, or one where none is.
        CheckpointError, BankError: these can't be used or don't fit together.
        OutputError: `out` can't be written.
    """
    here = choose_device(device)
    trained = load_trained(checkpoint, here)
    if trained.learner.answers != "depth":
        raise UsageError("gives labels, and no depths", where=trained.checkpoint.folder)
    if trained.learner.takes_labels and labeller is None:
        raise UsageError(
            "takes the labels of pixels as its second input", where=trained.checkpoint.folder,
            fix="Give a run that labels them: --labeller RUN",
        )  # fmt: skip
    if labeller is not None and not trained.learner.takes_labels:
        raise UsageError("takes no labels", where=trained.checkpoint.folder, fix="Leave --labeller out")
    labels = _labels(trained)
    other = None if labeller is None else _labeller(load_trained(labeller, here), trained, labels, views)
    predictor = trained.predictor(labels, views)
    about = {
        "format": FORMAT,
        "labelmerge": __version__,
        "meaning": _MEANING,
        "checkpoint": {"hash": trained.checkpoint.hash, "step": trained.checkpoint.step},
        "views": predictor.views.to_json(),
    }
    written: list[DepthPrediction] = []
    with tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch:
        found = find_images(images, Path(scratch), track)
        failed: list[tuple[str | Path, str]] = list(found.failed)
        places = places_of(found.files, out, _outputs)
        for path, stem in track(places.items(), "predicting", len(places)):
            try:
                pixels, orientation = read_photo(path)
                depth = predictor.depth(pixels, None if other is None else other.classes(pixels))
            except SampleError as error:
                _log.warning("skipped %s: %s", found.origins.get(path, path), error.what)
                failed.append((found.origins.get(path, path), error.what))
                continue
            values, picture, json = outputs = _outputs(out, stem)
            stored = stored_depth(depth)
            image = str(found.origins.get(path, path))
            size = {"height": depth.shape[0], "width": depth.shape[1], "exif_orientation": orientation}
            with whole_or_nothing(outputs):
                write_bytes(values, png_bytes(stored))
                write_bytes(picture, _picture(stored))
                write_json(json, {**about, "image": image, **size, "depth": values.name, "picture": picture.name})
            written.append(DepthPrediction(path, values, picture, json))
    return DepthPredictions(tuple(written), tuple(failed))


def stored_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Depths ``[H, W]`` as values from 1, the nearest, to 65535; all 1 where they are the same everywhere."""
    wide = depth.astype(np.float64)
    low, high = wide.min(), wide.max()
    share = (wide - low) / (high - low) if high > low else np.zeros_like(wide)
    return np.rint(1 + share * (_FARTHEST - 1)).astype(np.uint16)


def _picture(stored: npt.NDArray[np.uint16]) -> bytes:
    near = 1 - (stored.astype(np.float64) - 1) / (_FARTHEST - 1)
    knots = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(near, knots, channel) for channel in _RAMP.T], axis=-1)
    out = io.BytesIO()
    Image.fromarray(np.rint(colours).astype(np.uint8)).save(out, "jpeg", quality=92, subsampling=0)
    return out.getvalue()


def _outputs(out: Path, stem: str) -> tuple[Path, ...]:
    return tuple(out / f"{stem}_depth.{suffix}" for suffix in ("png", "jpg", "json"))


def _labels(trained: Trained) -> LabelList:
    """The labels that a run of depths was trained with; their vectors are those of the bank that it carries."""
    keys = trained.learner.vocabulary.keys
    if not trained.learner.takes_labels:
        return LabelList(("any",), ("any",), (None,), np.zeros((1, trained.learner.vocabulary.dim), dtype=np.float32))
    bank = _bank(trained)
    rows = bank.positions(keys)
    names, texts = (tuple(listed[row] for row in rows) for listed in (bank.names, bank.texts))
    return LabelList(names, texts, tuple(keys), bank.rows(keys))


def _bank(trained: Trained) -> Bank:
    folder = trained.checkpoint.bank_folder
    if folder is None:
        raise CheckpointError(
            "the checkpoint carries no bank, so no label has a vector", where=trained.checkpoint.folder
        )
    return Bank.load(folder)


def _labeller(other: Trained, trained: Trained, labels: LabelList, views: Views) -> Predictor:
    """What labels the pixels, by the labels of the run of depths. Raises BankError, UsageError."""
    if other.learner.answers != "labels":
        raise UsageError("gives depths, and no labels", where=other.checkpoint.folder, fix="Give another --labeller")
    if not _bank(other).same_encoder(_bank(trained)):
        raise BankError(
            "its label vectors are of another encoder than those of the run of depths",
            where=other.checkpoint.folder,
            fix="Give a --labeller that was trained with a bank of the same encoder",
        )
    return other.predictor(labels, views, _bank(trained))
