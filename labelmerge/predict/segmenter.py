"""A trained run in a notebook: images and words in, labels of pixels out, nothing written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmerge.device import choose_device
from labelmerge.errors import SampleError, quoted
from labelmerge.methods.meaning import By
from labelmerge.methods.restore import Trained, load_trained
from labelmerge.model.views import Views
from labelmerge.predict.asking import Asked, ask_run
from labelmerge.predict.overlays import overlay_jpg
from labelmerge.predict.predict import read_photo
from labelmerge.predict.queries import LabelQuery, parse_labels

if TYPE_CHECKING:
    from PIL import Image

Labels = str | Sequence[str] | Mapping[str, str]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An image with the label of every pixel. A notebook shows it as an overlay with a legend.

    Attributes:
        classes: int64 ``[H, W]``, positions in `names`.
        names: the labels that were asked for.
        image: uint8 ``[H, W, 3]``, RGB, as it was segmented.
    """

    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]
    image: Picture

    def __repr__(self) -> str:
        shares = ", ".join(f"{quoted(name)} {share:.1%}" for name, share in self.shares.items())
        return f"Segmentation({' x '.join(map(str, self.classes.shape))}: {shares})"

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels that each label has, 0..1, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.names)) / self.classes.size
        return {self.names[place]: float(counts[place]) for place in np.argsort(-counts, kind="stable")}

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """bool ``[H, W]``: the pixels of one label. Raises KeyError where it was not asked for."""
        if name not in self.names:
            raise KeyError(f"{name!r} was not asked for: {', '.join(self.names)}")
        mask: npt.NDArray[np.bool_] = self.classes == self.names.index(name)
        return mask

    def overlay(self) -> bytes:
        """The image in grey under the labels' colours, with a legend, as `labelmerge predict` writes it: JPEG."""
        return overlay_jpg(self.image, self.classes, self.names)

    def _repr_jpeg_(self) -> bytes:
        return self.overlay()


class Segmenter:
    """A trained run that segments images by any words. `labelmerge.open_run` makes one.

    The labels last asked for stay ready, so many images with the same labels cost their encoding once.

    Attributes:
        trained: the learner and the checkpoint that it is from.
    """

    def __init__(self, run: str | Path, *, device: str | None = None) -> None:
        """`run`: a run, one checkpoint of it, or a URL. Raises CheckpointError, UsageError."""
        self._device = device
        self.trained: Trained = load_trained(Path(run), choose_device(device))
        self._asked: tuple[object, Asked] | None = None

    def __repr__(self) -> str:
        checkpoint = self.trained.checkpoint
        return f"Segmenter({str(checkpoint.folder)!r}: {checkpoint.model_name}, step {checkpoint.step})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it was trained with, as ``dataset:name``, which `segment` takes. They need not be its only
        ones."""
        from labelmerge.bank.bank import Bank

        folder = self.trained.checkpoint.bank_folder
        if folder is None:
            return ()
        bank = Bank.load(folder)
        return tuple(f"{dataset}:{name}" for (dataset, _), name in zip(bank.keys, bank.names, strict=True))

    def segment(
        self,
        image: str | Path | Picture | Image.Image,
        labels: Labels | None = None,
        *,
        short_edge: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: int = 0,
        by: By | None = None,
    ) -> Segmentation:
        """Give every pixel of an image the nearest of the labels.

        Args:
            image: a file, which is turned as its EXIF orientation says; a picture of Pillow; or uint8 ``[H, W, 3]``,
                RGB.
            labels: as in ``--labels``, ``"road; deer = A deer is a hoofed animal"``; a list of names; or names with
                what each means, where "" says nothing. None: all labels of the dataset that the run was trained on, if
                it is one.
            short_edge: pixels that the short edge is resized to; 0: its own size; None: as in training.
            scales: factors of that size; results at several are averaged.
            flip: also average over mirror images.
            window: slide a square window of so many pixels over the image; 0: the image at once.
            by: what labels of datasets are asked for by: ``concepts`` or ``text``; None: concepts where the run has
                them.

        Raises:
            SampleError: the image can't be read, is no such array, or is too large for the memory.
            UsageError: a label can't be found, or the run gives no labels.
            CheckpointError, BankError, EncoderError: these can't be used.
        """
        pixels = _pixels(image)
        views = Views(short_edge=short_edge, scales=tuple(scales), flip=flip, window=window)
        queries = None if labels is None else _queries(labels)
        wanted = (queries, views, by)
        if self._asked is None or self._asked[0] != wanted:
            self._asked = (wanted, ask_run(self.trained, queries, views, device=self._device, by=by))
        asked = self._asked[1]
        return Segmentation(asked.predictor.classes(pixels), asked.listed.names, pixels)


def _queries(labels: Labels) -> list[LabelQuery]:
    if isinstance(labels, str):
        return parse_labels(labels)
    meanings = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, "")
    return [LabelQuery(name, " ".join(meaning.split())) for name, meaning in meanings.items()]


def _pixels(image: str | Path | Picture | Image.Image) -> Picture:
    if isinstance(image, str | Path):
        return read_photo(Path(image))[0]
    pixels = np.asarray(image) if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise SampleError(
            f"an image must be uint8 [height, width, 3], and this is {pixels.dtype} {list(pixels.shape)}",
            fix="Numbers from 0 to 1 times 255, as uint8; channels last",
        )
    return pixels
