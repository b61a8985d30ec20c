"""Segment any image with any list of labels: index PNG, what its values mean, and a picture to look at."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from labelmerge import __version__
from labelmerge.colours import Palette, palette
from labelmerge.device import choose_device
from labelmerge.errors import SampleError, UsageError
from labelmerge.files import whole_or_nothing, write_bytes, write_json
from labelmerge.methods.meaning import By
from labelmerge.methods.predictor import LabelList, SegmentMap
from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views
from labelmerge.predict.asking import ask_run
from labelmerge.predict.coco import CocoFile
from labelmerge.predict.images import Found, find_images, told_apart
from labelmerge.predict.overlays import overlay_jpg
from labelmerge.predict.queries import LabelQuery, ResolvedLabel
from labelmerge.predict.segments import PANOPTIC, PanopticFile, ids_png, labels_with, segment_rows
from labelmerge.progress import Track, no_track
from labelmerge.shardset.depth import eight_bit, is_deep, note_significant_bits
from labelmerge.shardset.pixels import refuse_huge

FORMAT = "labelmerge-prediction/1"
COCO = "coco.json"
_MAX_8BIT_LABELS = 254
_ORIENTATION = 0x0112  # the EXIF tag
_HEAD = 1 << 16  # bytes of a file in which a PNG says how many of its bits count

_AS_TRAINED = Views()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What was written for one image, and the share of its pixels that each label has, the largest first.

    `instances` and `segments`, the ids' picture and how many there are, where segments were asked for.
    """

    image: Path
    mask: Path
    labels: Path
    overlay: Path
    shares: dict[str, float]
    instances: Path | None = None
    segments: int | None = None


@dataclass(frozen=True)
class Predictions:
    """What `predict` did.

    Attributes:
        labels: the labels that were asked for, in the order of the mask's values.
        written: one entry for each image that was segmented.
        failed: path and reason of the others.
        coco: the COCO file, where one was asked for.
        panoptic: the COCO panoptic file, where one was asked for.
    """

    labels: tuple[ResolvedLabel, ...]
    written: tuple[Prediction, ...]
    failed: tuple[tuple[str | Path, str], ...]
    coco: Path | None = None
    panoptic: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "labels": [_describe(label, number) for number, label in enumerate(self.labels)],
            "written": [
                {name: str(value) if isinstance(value, Path) else value for name, value in vars(entry).items()}
                for entry in self.written
            ],
            "failed": [{"image": str(path), "reason": reason} for path, reason in self.failed],
            "coco": str(self.coco) if self.coco else None,
            "panoptic": str(self.panoptic) if self.panoptic else None,
        }


def predict(
    images: Sequence[str | Path],
    checkpoint: Path,
    labels: Sequence[LabelQuery] | None,
    out: Path,
    *,
    views: Views = _AS_TRAINED,
    encoder: str | None = None,
    device: str | None = None,
    by: By | None = None,
    coco: bool = False,
    segments: bool = False,
    segment_score: float | None = None,
    track: Track = no_track,
) -> Predictions:
    """Segment images with the labels asked for; every pixel gets one of them.

    For each image, `out` then holds ``<stem>.png``, 8-bit with a palette (16-bit for more than 254 labels), value =
    place in `labels`; ``<stem>.json``, what each value means; ``<stem>_overlay.jpg``. Images of one stem are numbered
    (``photo``, ``photo-2``). Photographs are turned as their EXIF orientation says, as viewers do, and so are the
    outputs. An image that can't be read is recorded and the others go on.

    Args:
        images: files of any format that Pillow reads, folders of them, patterns, or addresses on the web
            (`labelmerge.predict.images.find_images`). A file given twice is segmented once.
        checkpoint: a run, or one checkpoint folder.
        labels: as in `labelmerge.predict.queries`; names are looked up in the bank that the checkpoint carries. None:
            all labels of the dataset that the run was trained on, if it is one.
        views: how images are shown to the model.
        encoder: spec of the text encoder for new labels, where the bank's own can't be used on this machine.
        device: where the model lives; by default a GPU if there is one.
        by: what labels of datasets are asked for by: ``concepts``, the run's columns that they stand for, or their own
            ``text``; by default concepts where the run has them.
        coco: also write ``coco.json``, every label's region in every image (`labelmerge.predict.coco`), and of
            segments ``panoptic.json``; images by `labelmerge.predict.images.told_apart`.
        segments: tell things apart: ``<stem>_instances.png``, 16-bit ids, 0 for none, and what each is in the JSON.
        segment_score: how probable a segment's label has to be; by default as in training.

    Raises:
        UsageError: no image is there, or one would be overwritten; a label can't be found; the method knows no
            segments.
        CheckpointError, BankError, EncoderError: these can't be used.
        OutputError: `out` can't be written.
    """
    if segment_score is not None and not segments:
        raise UsageError("--segment-score is for --segments", fix="Give that, too, or leave it out")
    with tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch:
        found = find_images(images, Path(scratch), track)
        whole = [name for name, asked in ((COCO, coco), (PANOPTIC, coco and segments)) if asked]
        places = places_of(found.files, out, _outputs, [out / name for name in whole])
        return _predict(
            found, places, checkpoint, labels, out, views, encoder, device, by, coco, segments, segment_score, track
        )


def _predict(
    found: Found,
    places: dict[Path, str],
    checkpoint: Path,
    labels: Sequence[LabelQuery] | None,
    out: Path,
    views: Views,
    encoder: str | None,
    device: str | None,
    by: By | None,
    with_coco: bool,
    with_segments: bool,
    segment_score: float | None,
    track: Track,
) -> Predictions:
    here = choose_device(device)
    trained = load_trained(checkpoint, here)
    if segment_score is not None:
        trained.learner.set_segment_score(segment_score)
    asked = ask_run(trained, labels, views, encoder=encoder, device=device, by=by, segments=with_segments)
    resolved, predictor, source = asked.labels, asked.predictor, trained.checkpoint
    written: list[Prediction] = []
    failed: list[tuple[str | Path, str]] = list(found.failed)
    names = [label.name for label in resolved]
    coco = CocoFile(names) if with_coco else None
    panoptic = PanopticFile(out, names, asked.listed.things) if with_coco and with_segments else None
    called = told_apart(list(places), found.origins)
    for path, stem in track(places.items(), "predicting", len(places)):
        try:
            pixels, orientation = read_photo(path)
            segments = predictor.segments(pixels) if with_segments else None
            classes = predictor.classes(pixels)
        except SampleError as error:
            _log.warning("skipped %s: %s", found.origins.get(path, path), error.what)
            failed.append((found.origins.get(path, path), error.what))
            continue
        if segments is not None:
            classes = labels_with(classes, segments)
        if coco is not None:
            coco.add(called[path], classes)
        if panoptic is not None and segments is not None:
            panoptic.add(called[path], stem, segments)
        image = found.origins.get(path, path)
        about = {
            "format": FORMAT,
            "labelmerge": __version__,
            "image": str(image),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "exif_orientation": orientation,
            "checkpoint": {"hash": source.hash, "step": source.step, "model": source.model_name},
            "views": predictor.views.to_json(),
            "by": asked.by,
        }
        written.append(_write(path, out, stem, pixels, classes, segments, resolved, asked.listed, about))
    if written and with_segments and not any(each.segments for each in written):
        least = predictor.protocol()["segments"]["score"]
        _log.warning("no segment in any image: none has a label of at least %g; try --segment-score", least)
    if coco is not None:
        coco.write(out / COCO)
    return Predictions(
        resolved,
        tuple(written),
        tuple(failed),
        out / COCO if coco is not None else None,
        panoptic.write() if panoptic is not None else None,
    )


def read_photo(path: Path) -> tuple[npt.NDArray[np.uint8], int]:
    """Any image file as it is meant to be seen.

    Returns:
        uint8 ``[H, W, 3]``, RGB, turned as its EXIF orientation says; and that orientation, 1 to 8 (1: as stored).

    Raises:
        SampleError: it can't be read.
    """
    try:
        with Image.open(path) as image:
            refuse_huge(image.size)
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            turned = ImageOps.exif_transpose(image)
            if is_deep(turned):
                with path.open("rb") as file:
                    note_significant_bits(image, file.read(_HEAD))
                turned.info.update(image.info)
                # Pillow's own conversion would clip the values at 255
                turned = eight_bit(turned)
            return np.asarray(turned.convert("RGB")), orientation
    except SampleError as error:
        raise SampleError(error.what, where=path) from error
    except FileNotFoundError:
        raise SampleError("no such file", where=path) from None
    except UnidentifiedImageError as error:
        raise SampleError("can't be read as an image", where=path) from error
    except OSError as error:
        raise SampleError(f"can't be read ({error.strerror or error})", where=path) from error
    except Exception as error:  # decoders raise whatever they like at bytes that are not theirs
        raise SampleError(f"can't be read ({type(error).__name__}: {error})", where=path) from error


def places_of(
    images: Sequence[Path], out: Path, outputs: Callable[[Path, str], Sequence[Path]], taken: Sequence[Path] = ()
) -> dict[Path, str]:
    """The stem of each image's outputs, unlike all others and what is `taken` by files of all images.

    Raises UsageError where an output would replace an image.
    """
    places: dict[Path, str] = {}
    used = {str(path).casefold() for path in taken}  # paths of outputs
    seen: set[Path] = set()
    for path in images:
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        stem, number = path.stem, 1
        while used & (own := {str(output).casefold() for output in outputs(out, stem)}):
            number += 1
            stem = f"{path.stem}-{number}"
        used |= own
        places[path] = stem
    for stem in places.values():
        for output in outputs(out, stem):
            if output.resolve() in seen:
                raise UsageError(f"an output would replace the image {output}", fix="Choose another --out")
    return places


def _outputs(out: Path, stem: str) -> tuple[Path, Path, Path, Path]:
    return out / f"{stem}.png", out / f"{stem}.json", out / f"{stem}_overlay.jpg", out / f"{stem}_instances.png"


def _write(
    path: Path,
    out: Path,
    stem: str,
    pixels: npt.NDArray[np.uint8],
    classes: npt.NDArray[np.int64],
    segments: SegmentMap | None,
    labels: Sequence[ResolvedLabel],
    asked: LabelList,
    about: dict[str, Any],
) -> Prediction:
    mask_path, labels_path, overlay_path, instances_path = outputs = _outputs(out, stem)
    names = [label.name for label in labels]
    colours = palette(names)
    if segments is not None:
        about = {**about, "instances": instances_path.name, "segments": segment_rows(segments, asked.things)}
    counts = np.bincount(classes.ravel(), minlength=len(labels))
    rows = [
        {**_describe(label, number), "colour": colour, "pixels": pixels_of}
        for number, (label, colour, pixels_of) in enumerate(zip(labels, colours.tolist(), counts.tolist(), strict=True))
    ]
    for row, columns in zip(rows, asked.columns, strict=False):  # () where labels are asked for by text
        row["columns"] = list(columns)
    with whole_or_nothing(outputs):
        write_bytes(mask_path, _index_png(classes, colours))
        write_bytes(overlay_path, overlay_jpg(pixels, classes, names, None if segments is None else segments.ids))
        if segments is not None:
            write_bytes(instances_path, ids_png(segments))
        write_json(labels_path, {**about, "mask": mask_path.name, "overlay": overlay_path.name, "labels": rows})
    order = sorted(rows, key=lambda row: -row["pixels"])
    shares = {str(row["name"]): row["pixels"] / classes.size for row in order}
    if segments is None:
        return Prediction(path, mask_path, labels_path, overlay_path, shares)
    return Prediction(path, mask_path, labels_path, overlay_path, shares, instances_path, len(segments.labels))


def _describe(label: ResolvedLabel, number: int) -> dict[str, Any]:
    return {"id": number, "name": label.name, "text": label.text, "source": label.source}


def _index_png(classes: npt.NDArray[np.int64], colours: Palette) -> bytes:
    if len(colours) > _MAX_8BIT_LABELS:
        image = Image.fromarray(classes.astype(np.uint16))
    else:
        image = Image.fromarray(classes.astype(np.uint8))
        # A full palette: with a shorter one Pillow packs pixels into less than 8 bits, which few readers unpack.
        image.putpalette(colours.tobytes().ljust(3 * 256, b"\0"))
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    return out.getvalue()
