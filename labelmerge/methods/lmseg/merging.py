"""Queries → segments that do not overlap.

MaskFormer's rule (Cheng et al., NeurIPS 2021, section 3.4): of the queries that are sure of a label, the one with the
largest product of class and mask probability has the pixel, where its own mask has it, too. Every thing keeps a number
of its own; stuff of one label is one segment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Merged:
    """The segments of one image, made stripe by stripe.

    Attributes:
        queries: int64 ``[q]``, those that are sure of a label.
    """

    def __init__(self, classes: Tensor, least_score: float, least_overlap: float) -> None:
        """`classes`: float32 ``[Q, P + 1]``, probabilities, the last of "nothing"."""
        scores, labels = classes.max(dim=1)
        self.queries = ((labels < classes.shape[1] - 1) & (scores >= least_score)).nonzero().flatten()
        self._scores, self._labels, self._least = scores[self.queries], labels[self.queries], least_overlap

    def begin(self, height: int, width: int) -> None:
        """Before the first stripe."""
        device, count = self._scores.device, len(self.queries)
        self._owner = torch.zeros(height, width, dtype=torch.int32, device=device)  # 0: nobody's
        self._whole = torch.zeros(count, dtype=torch.long, device=device)
        self._left = torch.zeros(count, dtype=torch.long, device=device)

    def add(self, rows: slice, masks: Tensor) -> None:
        """The masks' probabilities in some rows, ``[q, rows, W]``."""
        if not len(masks):
            return
        inside = masks >= 0.5
        best = (masks * self._scores[:, None, None]).argmax(dim=0)
        has = inside.gather(0, best[None])[0]
        self._owner[rows] = torch.where(has, best + 1, 0).int()
        self._whole += inside.flatten(1).sum(1)
        self._left += torch.bincount(best[has], minlength=len(masks))

    def segments(
        self, things: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids ``[H, W]``, and the labels and scores of segments 1 … N.

        Args:
            things: bool ``[P]``: the labels whose segments stay apart. One segment of stuff has the score of its surest
                query.
        """
        whole, left, labels = (each.cpu().numpy() for each in (self._whole, self._left, self._labels))
        scores = self._scores.cpu().numpy()
        number_of = np.zeros(len(labels) + 1, dtype=np.int32)
        found_labels: list[int] = []
        found_scores: list[float] = []
        stuff: dict[int, int] = {}
        for query, label in enumerate(labels.tolist()):
            if not left[query] or left[query] < self._least * whole[query]:
                continue
            if not things[label] and label in stuff:
                number = stuff[label]
                found_scores[number - 1] = max(found_scores[number - 1], float(scores[query]))
            else:
                found_labels.append(label)
                found_scores.append(float(scores[query]))
                number = len(found_labels)
                if not things[label]:
                    stuff[label] = number
            number_of[query + 1] = number
        ids: npt.NDArray[np.int32] = number_of[self._owner.cpu().numpy()]
        return ids, np.array(found_labels, dtype=np.int64), np.array(found_scores, dtype=np.float32)
