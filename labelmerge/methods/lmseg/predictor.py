"""From LMSeg's queries to the labels of an image's pixels, or to segments.

A pixel's score for a label is Σ over the queries of the label's probability times the mask's (Cheng et al., NeurIPS
2021, section 3.4). Mask logits are sampled at the centres of the image's own pixels, in stripes of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.device import at_once
from labelmerge.errors import BankError, UsageError
from labelmerge.methods.inference import Axis, LabelVectors
from labelmerge.methods.lmseg.merging import Merged
from labelmerge.methods.predictor import Instances, LabelList, Predictor, SegmentMap, refuse_no_numbers
from labelmerge.model.views import View, Views

if TYPE_CHECKING:
    from labelmerge.methods.lmseg.learner import LmsegLearner

_MOST_INSTANCES = 100  # of an image, as COCO counts
_STRIPE_ELEMENTS = 2**24  # queries or labels x rows x width of a stripe: 64 MiB of float32, a few times over


@dataclass(frozen=True)
class _Window:
    """What the queries say of one window.

    Attributes:
        classes: float32 ``[Q, P + 1]``, probabilities; the last is "nothing".
        masks: float32 ``[Q, h, w]``, logits.
        y, x: where the image's pixels lie in it.
    """

    classes: Tensor
    masks: Tensor
    y: Axis
    x: Axis

    def probabilities(self, rows: slice, queries: Tensor | None = None) -> Tensor:
        """Of the masks, ``[Q, rows, columns]``; `rows` count from the window's first."""
        masks = self.masks if queries is None else self.masks[queries]
        share = self.y.share[rows][:, None]
        lines = masks[:, self.y.before[rows]] * (1 - share) + masks[:, self.y.after[rows]] * share
        out = lines[..., self.x.before].mul_(1 - self.x.share)  # in place: large maps are slow to allocate
        out += lines[..., self.x.after].mul_(self.x.share)
        return out.sigmoid_()


class LmsegPredictor(Predictor):
    """Queries with one list of labels."""

    def __init__(self, learner: LmsegLearner, labels: LabelList, views: Views) -> None:
        """Raises BankError where the vectors are of another dimension, UsageError where no head knows the labels."""
        self.views, self.device = views, next(learner.parameters()).device
        self._learner, self._settings = learner, learner.settings
        if learner.heads is None:
            labels = _prompted(learner, labels)
            self._labels = LabelVectors(labels.vectors, labels.several)
            vectors = labels.vectors[self._labels.positions] if labels.several is None else self._labels.vectors
            if vectors.shape[1] != learner.vocabulary.dim:
                raise BankError(
                    f"the label vectors have {vectors.shape[1]} dimensions, those of training {learner.vocabulary.dim}",
                    fix="Use the bank that the model was trained with",
                )
            self._vectors = at_once(torch.from_numpy(vectors), self.device)
        else:
            outputs, nothing = outputs_asked(learner, labels)
            one_hot = np.eye(nothing + 1, dtype=np.float32)
            self._labels = LabelVectors((), several=[one_hot[own] for own in outputs])
            self._rows = [*self._labels.vectors.argmax(axis=1).tolist(), nothing]
        self.positions, self.predicted_as = self._labels.positions, self._labels.predicted_as
        asked = {None if key is None else key[0] for key in labels.keys}
        one = next((space for space in learner.spaces if {space} == asked), None)
        every = list(range(len(learner.queries)))
        self._sets = every if one is None or len(every) == 1 else [learner.spaces.index(one)]
        self._last: tuple[View, npt.NDArray[np.uint8], list[_Window]] | None = None
        things = labels.things
        self._things = np.array([things is None or things[k] for k in self.positions], dtype=np.bool_)

    @torch.inference_mode()
    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """Σ of label times mask, their mean over the windows and views."""
        height, width = image.shape[:2]
        seen = [self._windows(image, view) for view in self.views.of(height, width)]
        for rows in self._stripes(height, width, max(len(seen[0][0].masks), len(self.positions))):
            top = rows.start
            total = torch.zeros(len(self.positions), rows.stop - top, width, device=self.device)
            for windows in seen:
                own, counts = torch.zeros_like(total), torch.zeros_like(total[0])
                for window in windows:
                    first, last = max(window.y.covers.start, top), min(window.y.covers.stop, rows.stop)
                    if first < last:
                        masks = window.probabilities(slice(first - window.y.covers.start, last - window.y.covers.start))
                        here = slice(first - top, last - top)
                        own[:, here, window.x.covers] += torch.einsum("qp,qrc->prc", window.classes[:, :-1], masks)
                        counts[here, window.x.covers] += 1
                total += own / counts
            yield rows, total / len(seen)

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The scores as shares of their sum over the labels."""
        for rows, scores in self.scores(image):
            positive = scores.clamp(min=1e-12)
            yield rows, positive / positive.sum(0)

    @torch.inference_mode()
    def segments(self, image: npt.NDArray[np.uint8]) -> SegmentMap:
        """Each sure query a segment, where it is the strongest; stuff of one label is one segment.

        Raises:
            UsageError: the image would be shown more than once, or in pieces: queries then are not the same.
        """
        with self.memory_faults(image):
            merged, window = self._merged(image)
            height, width = image.shape[:2]
            merged.begin(height, width)
            for rows in self._stripes(height, width, len(merged.queries)):
                merged.add(rows, window.probabilities(rows, merged.queries))
            ids, labels, scores = merged.segments(self._things)
        return SegmentMap(ids, self.positions[labels], scores)

    @torch.inference_mode()
    def instances(self, image: npt.NDArray[np.uint8]) -> Instances:
        """The 100 most probable pairs of query and thing; score: probability of the class times that of the mask.

        The latter is the mean over the mask. Raises UsageError as `segments`.
        """
        with self.memory_faults(image):
            found = self._found(image)
        found.sort(key=lambda each: -each[0])
        return Instances(
            np.array([label for _, label, _ in found], dtype=np.int64),
            np.array([score for score, _, _ in found], dtype=np.float32),
            tuple(encoded for *_, encoded in found),
        )

    def _found(self, image: npt.NDArray[np.uint8]) -> list[tuple[float, int, dict[str, Any]]]:
        """Score, label and mask of the things of an image."""
        from pycocotools import mask as coco

        window = self.once(image)
        things = np.flatnonzero(self._things)
        scores = window.classes[:, :-1][:, things]  # [Q, T]
        best = scores.flatten().topk(min(_MOST_INSTANCES, scores.numel()))
        found = []
        runs: dict[int, tuple[dict[str, Any], float] | None] = {}
        for place, score in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            query, thing = divmod(place, len(things))
            if query not in runs:
                mask = window.probabilities(slice(0, image.shape[0]), torch.tensor([query], device=self.device))[0]
                inside = mask >= 0.5
                encoded = coco.encode(np.asfortranarray(inside.cpu().numpy(), dtype=np.uint8))
                runs[query] = (encoded, float(mask[inside].mean())) if inside.any() else None
            if (known := runs[query]) is not None:
                found.append((score * known[1], int(self.positions[things[thing]]), known[0]))
        return found

    def protocol(self) -> Mapping[str, Any]:
        """How queries become labels and segments."""
        settings = self._settings
        return {
            "decision": "largest sum over the queries of class probability times mask probability",
            "segments": {"score": settings.segment_score, "overlap": settings.segment_overlap},
            "queries": settings.queries * len(self._sets),
        }

    def once(self, image: npt.NDArray[np.uint8]) -> _Window:
        """The queries' outputs for the whole image. Raises UsageError if the views show it more than once."""
        if self.views.several or self.views.window:
            raise UsageError(
                "segments are told apart in one look at the whole image",
                fix="Leave out --scales, --flip and --window; --short-edge and --device cpu save memory",
            )
        (view,) = self.views.of(*image.shape[:2])
        (window,) = self._windows(image, view)
        refuse_no_numbers(window.classes.isfinite().all() & window.masks.isfinite().all())
        return window

    def _merged(self, image: npt.NDArray[np.uint8]) -> tuple[Merged, _Window]:
        window = self.once(image)
        return Merged(window.classes, self._settings.segment_score, self._settings.segment_overlap), window

    def _stripes(self, height: int, width: int, maps: int) -> Iterator[slice]:
        """Rows of which so many maps (queries, labels) can be held at once."""
        stripe = max(1, _STRIPE_ELEMENTS // (max(1, maps) * width))
        for top in range(0, height, stripe):
            yield slice(top, min(top + stripe, height))

    def _windows(self, image: npt.NDArray[np.uint8], view: View) -> list[_Window]:
        """What the queries say of an image; of the last one it is kept, as it may be asked for labels and segments."""
        if self._last is not None and self._last[0] == view and np.array_equal(self._last[1], image):
            return self._last[2]
        self._last = None  # before there is another
        made = self._look(image, view)
        if not (self.views.several or self.views.window):
            self._last = view, image.copy(), made
        return made

    def _look(self, image: npt.NDArray[np.uint8], view: View) -> list[_Window]:
        stride = self._learner.model.stride
        pixels = at_once(torch.from_numpy(image.copy()), self.device).permute(2, 0, 1)[None].float() / 255
        shown = F.interpolate(pixels, (view.height, view.width), mode="bilinear", antialias=True, align_corners=False)
        size = image.shape[:2]
        axis = partial(Axis.of, stride=stride, device=self.device)
        made = []
        for top in view.tops:
            for left in view.lefts:
                cut = shown[:, :, top : top + view.window_height, left : left + view.window_width]
                classes, masks = self._ask(cut.flip(3) if view.mirror else cut)
                h, w = (-(-side // stride) for side in (view.window_height, view.window_width))
                y = axis(size[0], view.height, top, view.window_height)
                x = axis(size[1], view.width, left, view.window_width, view.mirror)
                made.append(_Window(classes, masks[:, :h, :w], y, x))
        return made

    def _ask(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[Q, P + 1]`` and mask logits ``[Q, h, w]`` of one image ``[1, 3, h, w]``."""
        learner = self._learner
        features, memory = learner.see(images)
        words, count = None, len(self._labels.vectors)
        if learner.heads is None:
            words = learner.words(self._vectors)
            assert words is not None
            words = words[None]
        padding = torch.zeros(1, count, dtype=torch.bool, device=self.device)
        classes, masks = [], []
        for number in self._sets:
            queries = learner.decode(learner.queries[number : number + 1], memory, words, padding)[-1]
            logits = self._by_head(queries) if words is None else learner.by_words(queries, words)
            each = logits[0].float().T  # of vectors and of "nothing"
            classes.append(torch.cat([self._labels.of_labels(each[:-1]), each[-1:]]).T.softmax(-1))
            masks.append(learner.masks(queries, features)[0].float())
        return torch.cat(classes), torch.cat(masks)

    def _by_head(self, queries: Tensor) -> Tensor:
        assert self._learner.heads is not None
        logits: Tensor = self._learner.heads(queries)[..., self._rows]
        return logits


def _prompted(learner: LmsegLearner, labels: LabelList) -> LabelList:
    """The labels with the vectors that a learned prompt makes; as they are where there is none."""
    prompt = learner.prompt
    if prompt is None:
        return labels
    with torch.inference_mode():
        if labels.several is None:
            return replace(labels, vectors=prompt.of_labels(labels.keys, labels.texts).cpu().numpy())
        several = (prompt.of_labels([None] * len(lines), lines) for text in labels.texts if (lines := text.split("\n")))
        return replace(labels, several=tuple(each.cpu().numpy() for each in several))


def outputs_asked(learner: LmsegLearner, labels: LabelList) -> tuple[list[list[int]], int]:
    """The outputs that each of the K labels may be, and that of "nothing".

    A label that never occurred in training has none. Raises UsageError where the labels are of several heads.
    """
    union = learner.settings.classifier == "union"
    known = [
        {key} if key in learner.outputs else {
            each for column in learner.vocabulary.columns_of(key, text) for each in learner.vocabulary.labels[column]
        }
        for key, text in zip(labels.keys, labels.texts, strict=True)
    ]  # fmt: skip
    first = max(learner.outputs.values()) + 1
    if union:
        outputs = [sorted({learner.outputs[key] for key in own}) for own in known]
        return _refuse_none(outputs), first
    for number, space in enumerate(learner.spaces):
        outputs = [[learner.outputs[key] for key in sorted(own) if key[0] == space] for own in known]
        if all(own or (key is not None and key[0] == space) for own, key in zip(outputs, labels.keys, strict=True)):
            return _refuse_none(outputs), first + number
    spaces = sorted({space for own in known for space, _ in own})
    raise UsageError(
        f"these labels are of {len(spaces)} datasets ({', '.join(spaces)}), and each has a head of its own",
        fix="Ask for labels of one dataset, such as --labels 'cityscapes:*', or train with --classifier text",
    )


def _refuse_none(outputs: list[list[int]]) -> list[list[int]]:
    if not any(outputs):
        raise UsageError("none of these labels occurred in training", fix="Ask for labels that did")
    return outputs
