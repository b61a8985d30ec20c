"""The example predictions of runs side by side: one row of pictures for each image, as `eval` chose and drew them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelmerge.colours import palette
from labelmerge.evaluate.examples import picture_paths, pictures_hash
from labelmerge.text import counted

_LARGEST = 1 << 20  # bytes of a picture; eval's are some 20 kB
_MOST_LABELS = 24  # in the legend of one image


@dataclass(frozen=True)
class ExampleRecord:
    """What a results.json says of one example.

    Attributes:
        number: the sample's place in its set.
        accuracy: right pixels / labelled pixels; None where none is labelled.
        classes: names of those that are labelled or predicted, the most frequent first.
        sha256: of its pictures.
        paths: where these are to lie: image, truth, prediction.
    """

    number: int
    key: str
    accuracy: float | None
    classes: Sequence[str]
    sha256: str
    paths: Sequence[Path]


@dataclass(frozen=True)
class Picture:
    """A picture of the page, which holds it as a data URI; width and height are its own."""

    caption: str
    note: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class LabelColour:
    """An entry of a legend; the colour is ``#rrggbb``."""

    name: str
    colour: str


@dataclass(frozen=True)
class ImageExamples:
    """One image: itself, its truth, and what each run says."""

    key: str
    pictures: Sequence[Picture]
    labels: Sequence[LabelColour]


@dataclass(frozen=True)
class SetExamples:
    """Examples of one set, in its order or the worst first."""

    name: str
    about: str
    images: Sequence[ImageExamples]


def read_examples(results: Path, name: str, entries: Any) -> list[ExampleRecord]:
    """The examples of one set of a results.json; none where the set's name is no part of a file's.

    Raises:
        KeyError, TypeError, ValueError: malformed.
    """
    if Path(name).name != name:
        return []
    found = []
    for entry in entries:
        accuracy, number = entry["pixel_accuracy"], entry["number"]
        if type(number) is not int or number < 0:
            raise TypeError(number)
        found.append(
            ExampleRecord(
                number=number,
                key=str(entry["key"]),
                accuracy=None if accuracy is None else float(accuracy),
                classes=[str(word) for word in entry["classes"]],
                sha256=str(entry["sha256"]),
                paths=picture_paths(results, name, number),
            )
        )
    return found


_BY_PLACE = (
    "chosen by their place and not by their result: the middle ones of equal parts of the images measured. Beside each "
    "run: how much of the labelled pixels is right. Dark grey has no label."
)
_BY_RESULT = (
    "of which the least is right in this run; the table of images beside its results has all of them, the worst first."
)


def side_by_side(
    name: str,
    classes: Sequence[str],
    results: Sequence[tuple[str, str, Sequence[ExampleRecord]]],
    *,
    worst: bool = False,
) -> SetExamples:
    """Every image that some results of a set have pictures of.

    Pictures that are missing, or are not those that the results speak of, are left out.

    Args:
        name: what to call them.
        classes: the names of its label space, which decide the colours.
        results: what each is called, what data it was measured on, and its examples.
        worst: they are those with the most mistakes, of one result; and stand in order of that.
    """
    colours = {word: "#" + bytes(rgb).hex() for word, rgb in zip(classes, palette(classes), strict=True)}
    images: dict[tuple[int, str, str], list[tuple[str, ExampleRecord, Sequence[Picture]]]] = {}
    for label, data, examples in results:
        for example in examples:
            if pictures := _pictures(example):
                images.setdefault((example.number, example.key, data), []).append((label, example, pictures))
    rows = []
    for (_, key, _), shown in images.items() if worst else sorted(images.items(), key=lambda item: item[0]):
        image, truth, _ = shown[0][2]
        pictures = [replace(image, caption="image"), replace(truth, caption="truth")]
        pictures += [replace(own[2], caption=label, note=_right(example)) for label, example, own in shown]
        # The classes of the first runs' pictures first, each by how much of them it is.
        labels = [word for word in dict.fromkeys(w for _, e, _ in shown for w in e.classes) if word in colours]
        rows.append(
            ImageExamples(
                key=key,
                pictures=pictures,
                labels=[LabelColour(word, colours[word]) for word in labels[:_MOST_LABELS]],
            )
        )
    return SetExamples(name, f"{counted(len(rows), 'image')}{f' {_BY_RESULT}' if worst else f', {_BY_PLACE}'}", rows)


def _right(example: ExampleRecord) -> str:
    return "no label" if example.accuracy is None else f"{100 * example.accuracy:.1f} % right"


def _pictures(example: ExampleRecord) -> list[Picture]:
    """Image, truth and prediction; nothing where they are not the results' own."""
    from PIL import Image

    try:
        if any(path.stat().st_size > _LARGEST for path in example.paths):
            return []
        pictures = [path.read_bytes() for path in example.paths]
        if pictures_hash(pictures) != example.sha256:
            return []
        sizes = [Image.open(io.BytesIO(data), formats=["webp"]).size for data in pictures]
    except (OSError, ValueError):
        return []
    return [
        Picture("", "", f"data:image/webp;base64,{base64.b64encode(data).decode()}", *size)
        for data, size in zip(pictures, sizes, strict=True)
    ]
