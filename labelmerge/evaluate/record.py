"""What an evaluation found: as results.json, as text, as files beside it. docs/evaluation.md says what it means."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge import __version__
from labelmerge.evaluate.examples import Example, picture_paths, write_examples
from labelmerge.evaluate.images import ImageResult, images_path, images_table
from labelmerge.evaluate.sets import EvalSet
from labelmerge.files import whole_or_nothing, write_bytes, write_json, write_text
from labelmerge.methods.predictor import LabelList
from labelmerge.tasks.ambiguity import AmbiguityAware
from labelmerge.tasks.depth import DepthFigures
from labelmerge.tasks.instances import AveragePrecision
from labelmerge.tasks.panoptic import PanopticQuality
from labelmerge.tasks.semantic import Confusion, Metrics, worst_mistakes
from labelmerge.text import aligned

FORMAT = "labelmerge-results/1"
_MAX_REASONS = 100  # skipped samples that are listed in the results; all are counted
_MISTAKES = 20  # pairs of classes that are listed
_MISTAKES_SHOWN = 5


@dataclass(frozen=True)
class SetResult:
    """What was measured on one split of one dataset.

    Attributes:
        data: the set.
        labels: how each class was asked for, in the order of the label space.
        predicted_as: position of the class that is predicted for each class (`LabelVectors.predicted_as`).
        images: how many images were measured.
        skipped: key or path, and reason, of the samples that could not be used.
        ignored_pixels: pixels of these images without a label.
        confusion: int64 ``[K, K]``, row = truth, column = prediction, in the order of the label space.
        metrics: what it says; 0 where no class has a vector.
        ambiguity: what it says where relations count; None where the set's labels are not related and
            all of them were annotated.
        mixed: what a list of several sets' labels came to on this set, where one was asked for.
        panoptic: what its segments came to, where they were asked for and the set has any.
        mixed_panoptic: the same with the list of several sets' labels.
        instances: the same of its things, each by itself.
        depth: what its depths came to, of a run that gives depths and labels nothing.
        examples: a few of the images.
        each: how well each image was segmented, the worst first.
        worst: pictures of the worst of them, where they were asked for.
    """

    data: EvalSet
    labels: LabelList
    predicted_as: Sequence[int]
    images: int
    skipped: Sequence[tuple[str, str]]
    ignored_pixels: int
    confusion: Confusion
    metrics: Metrics
    ambiguity: AmbiguityAware | None = None
    mixed: AmbiguityAware | None = None
    panoptic: PanopticQuality | None = None
    mixed_panoptic: PanopticQuality | None = None
    instances: AveragePrecision | None = None
    examples: Sequence[Example] = ()
    each: Sequence[ImageResult] = ()
    worst: Sequence[Example] = ()
    depth: DepthFigures | None = None

    @property
    def name(self) -> str:
        """``<dataset>-<split>``."""
        return self.data.name

    @property
    def ignored_share(self) -> float:
        """Of all pixels of the images measured, 0..1; NaN where none was."""
        pixels = self.ignored_pixels + int(self.confusion.sum())
        return self.ignored_pixels / pixels if pixels else math.nan

    @property
    def why_zero(self) -> str:
        """Why nothing could be predicted; "" where something could."""
        if any(self.labels.counts) or self.depth is not None:
            return ""
        return "no label has a vector: no training label has the name of one of them"

    def to_json(self) -> dict[str, Any]:
        """One entry of ``sets`` in results.json."""
        space, metrics = self.data.space, self.metrics
        if self.depth is not None:
            return {**self._head(), "miou": None, "depth": self.depth.to_json(), "classes": [], **self._foot()}
        classes = []
        for k, (name, index) in enumerate(zip(space.names, space.indices, strict=True)):
            row: dict[str, Any] = {
                "name": name,
                "index": index,
                "iou": _number(metrics.iou[k]),
                "accuracy": _number(metrics.accuracy[k]),
                "truth_pixels": int(metrics.truth_pixels[k]),
                "predicted_pixels": int(metrics.predicted_pixels[k]),
                "text": self.labels.texts[k],
            }
            if self.labels.columns:
                row["vectors"], row["columns"] = self.labels.counts[k], list(self.labels.columns[k])
            for figure, figures in (("ambiguity_aware_iou", self.ambiguity), ("mixed_iou", self.mixed)):
                if figures is not None:
                    row[figure] = _number(figures.iou[k])
            if self.panoptic is not None:
                row["panoptic"] = self.panoptic.class_json(k)
            if self.instances is not None:
                row["ap"] = _number(self.instances.classes[k])
            meant = self.predicted_as[k]
            if meant != k:
                row["predicted_as"] = space.indices[meant] if meant >= 0 else None
            classes.append(row)
        return {
            **self._head(),
            "miou": _number(metrics.miou),
            "miou_labelled": _number(metrics.miou_labelled),
            "frequency_weighted_iou": _number(metrics.frequency_weighted_iou),
            "mean_accuracy": _number(metrics.mean_accuracy),
            "pixel_accuracy": _number(metrics.pixel_accuracy),
            **({"ambiguity_aware": self.ambiguity.to_json()} if self.ambiguity is not None else {}),
            **({"mixed": self._mixed_json(self.mixed)} if self.mixed is not None else {}),
            **({"panoptic": self.panoptic.to_json()} if self.panoptic is not None else {}),
            **({"instances": self.instances.to_json()} if self.instances is not None else {}),
            **({"why_zero": self.why_zero} if self.why_zero else {}),
            "labelled_pixels": int(self.confusion.sum()),
            "ignored_pixels": self.ignored_pixels,
            "ignored_share": _number(self.ignored_share),
            "classes_without_truth": [row["name"] for row in classes if not row["truth_pixels"]],
            "classes": classes,
            "confused": [
                {
                    "truth": space.names[mistake.truth],
                    "prediction": space.names[mistake.prediction],
                    "pixels": mistake.pixels,
                    "share_of_truth": mistake.share,
                }
                for mistake in worst_mistakes(self.confusion, _MISTAKES)
            ],
            "examples": [example.to_json(space) for example in self.examples],
            **({"worst": [example.to_json(space) for example in self.worst]} if self.worst else {}),
            **self._foot(),
        }

    def _head(self) -> dict[str, Any]:
        return {
            "dataset": self.data.dataset,
            "split": self.data.split,
            "images": self.images,
            "skipped": len(self.skipped),
            "skipped_samples": [{"key": key, "reason": reason} for key, reason in self.skipped[:_MAX_REASONS]],
        }

    def _foot(self) -> dict[str, Any]:
        return {
            "annotation_type": self.data.annotation_type,
            "label_space": self.data.space.hash,
            "source": dict(self.data.source),
        }

    def _mixed_json(self, mixed: AmbiguityAware) -> dict[str, Any]:
        panoptic = {} if self.mixed_panoptic is None else {"panoptic": self.mixed_panoptic.to_json()}
        return {**mixed.to_json(), **panoptic}


@dataclass(frozen=True)
class Results:
    """What `labelmerge.evaluate.evaluate.evaluate` found.

    Attributes:
        sets: one result for each split, in order of dataset and split.
        harmonic_mean: of the sets' mIoU (0..1).
        protocol: everything that the numbers depend on, as in results.json.
        reproduce: the command.
        path: results.json.
        mixed: the list of several sets' labels as results.json has it, where one was asked for.
    """

    sets: tuple[SetResult, ...]
    harmonic_mean: float
    protocol: dict[str, Any]
    reproduce: str
    path: Path
    mixed: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"{self.table()}\n\n{self.path}"

    @property
    def mixed_miou(self) -> float:
        """Mean over the sets of mIoU with one list of all their labels; NaN where none was asked for."""
        known = [result.mixed.miou for result in self.sets if result.mixed is not None]
        known = [value for value in known if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    @property
    def of_depths(self) -> bool:
        """Whether depths were measured, and no labels."""
        return any(result.depth is not None for result in self.sets)

    @property
    def confusion_path(self) -> Path:
        """The confusion matrices: an npz with one int64 ``[K, K]`` array for each set, by its name."""
        return self.path.with_name(f"{self.path.stem}.confusion.npz")

    @property
    def images_path(self) -> Path:
        """How well each image was segmented."""
        return images_path(self.path)

    def picture_path(self, result: SetResult) -> Path:
        """The picture of a set's confusion matrix."""
        return self.path.with_name(f"{self.path.stem}.confusion.{result.name}.png")

    def to_json(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "format": FORMAT,
            "labelmerge": __version__,
            "harmonic_mean": _number(self.harmonic_mean),
            **({"mixed": {"miou": _number(self.mixed_miou), **self.mixed}} if self.mixed is not None else {}),
            "sets": [result.to_json() for result in self.sets],
            **({} if self.of_depths else {"confusion": self.confusion_path.name, "images": self.images_path.name}),
            "protocol": self.protocol,
            "reproduce": self.reproduce,
        }

    def write(self) -> None:
        """Write results.json, and before it the confusion matrices, the images' table and the examples; OutputError."""
        from labelmerge.evaluate.confusion import draw_confusion

        if self.of_depths:
            write_json(self.path, self.to_json())
            return
        matrices = io.BytesIO()
        np.savez_compressed(matrices, allow_pickle=False, **{result.name: result.confusion for result in self.sets})
        kept = {(result.name, one.number): one for result in self.sets for one in (*result.examples, *result.worst)}
        examples = [(name, example) for (name, _), example in kept.items()]
        pictures = [path for name, example in examples for path in picture_paths(self.path, name, example.number)]
        with whole_or_nothing([self.confusion_path, self.images_path, *map(self.picture_path, self.sets), *pictures]):
            write_bytes(self.confusion_path, matrices.getvalue())
            write_text(self.images_path, images_table((each.name, each.data.space, each.each) for each in self.sets))
            for result in self.sets:
                images = f"{result.images} image{'s' * (result.images != 1)}"
                title = f"{result.name}: {images}, mIoU {_percent(result.metrics.miou)} %"
                drawn = draw_confusion(result.confusion, result.data.space.names, title=title)
                write_bytes(self.picture_path(result), drawn)
            write_examples(self.path, examples)
            write_json(self.path, self.to_json())

    def table(self, *, per_class: bool = False) -> str:
        """The results as plain text, in percent; with the IoU of every class if asked for.

        "classes": how many are labelled somewhere, of all.
        """
        if self.of_depths:
            return self._depths()
        heads = ["mIoU %", "fw IoU %", "mean acc %", "pixel acc %", "ignored %"]
        more: list[tuple[str, list[float]]] = []
        for head, figures in (
            ("with relations %", [result.ambiguity for result in self.sets]),
            ("mixed %", [result.mixed for result in self.sets]),
        ):
            if any(each is not None for each in figures):
                more.append((head, [math.nan if each is None else each.miou for each in figures]))
        more += self._in_segments()
        heads += [head for head, _ in more]
        rows: list[tuple[str, ...]] = [("set", "images", "classes", *heads)]
        for place, result in enumerate(self.sets):
            metrics = result.metrics
            figures_of = (metrics.miou, metrics.frequency_weighted_iou, metrics.mean_accuracy, metrics.pixel_accuracy)
            classes = f"{int((metrics.truth_pixels > 0).sum())}/{len(metrics.iou)}"
            beside = [values[place] for _, values in more]
            shown = map(_percent, (*figures_of, result.ignored_share, *beside))
            rows.append((result.name, str(result.images), classes, *shown))
        rows.append(("harmonic mean", "", "", _percent(self.harmonic_mean), *[""] * (len(heads) - 1)))
        if self.mixed is not None:
            rows.append(("mean", *[""] * (len(heads) + 1), _percent(self.mixed_miou)))
        parts = ["\n".join(aligned(rows))]
        parts += [f"{result.name}: {result.why_zero}" for result in self.sets if result.why_zero]
        for result in self.sets if per_class else ():
            lines: list[tuple[str, ...]] = [(result.name, "IoU %", "truth pixels", "predicted")]
            measured = zip(
                result.data.space.names,
                result.metrics.iou,
                result.metrics.truth_pixels,
                result.metrics.predicted_pixels,
                strict=True,
            )
            lines += [(name, _percent(iou), f"{truth:,}", f"{found:,}") for name, iou, truth, found in measured]
            parts.append("\n".join(aligned(lines)))
        parts += [text for result in self.sets if (text := self._confused(result))]
        return "\n\n".join(parts)

    def _depths(self) -> str:
        rows: list[tuple[str, ...]] = [("set", "images", "AbsRel %", "δ1 %", "δ2 %", "δ3 %", "known pixels")]
        for result in self.sets:
            if (found := result.depth) is not None:
                figures = map(_percent, (found.abs_rel, *found.deltas))
                rows.append((result.name, str(found.images), *figures, f"{found.pixels:,}"))
        return "\n".join(aligned(rows))

    def _in_segments(self) -> list[tuple[str, list[float]]]:
        """The columns of PQ, where it was measured."""
        columns = []
        for head, group in (("PQ %", "all"), ("PQ things %", "things"), ("PQ stuff %", "stuff")):
            found = [result.panoptic.groups.get(group) if result.panoptic else None for result in self.sets]
            if any(each is not None for each in found):
                columns.append((head, [math.nan if each is None else each.pq for each in found]))
        if any(result.mixed_panoptic is not None for result in self.sets):
            mixed = [each.mixed_panoptic.groups["all"].pq if each.mixed_panoptic else math.nan for each in self.sets]
            columns.append(("mixed PQ %", mixed))
        if any(result.instances is not None for result in self.sets):
            found_ap = [result.instances.ap if result.instances else math.nan for result in self.sets]
            columns.append(("AP %", found_ap))
        return columns

    def _confused(self, result: SetResult) -> str:
        names = result.data.space.names
        worst = worst_mistakes(result.confusion, _MISTAKES_SHOWN)
        lines: list[tuple[str, ...]] = [(f"{result.name}, most confused", "taken for", "pixels", "% of its pixels")]
        lines += [(names[m.truth], names[m.prediction], f"{m.pixels:,}", _percent(m.share)) for m in worst]
        return "\n".join(aligned(lines)) if worst else ""


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
