"""Images and linear heads in, the class of every pixel out: for methods whose labels are outputs of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmerge.methods.inference import LabelVectors, PixelModel, stripes
from labelmerge.methods.predictor import Predictor
from labelmerge.model.views import Views


class LogitPredictor(Predictor):
    """The label with the largest logit; of several outputs that a label may be, the largest is its own.

    Logits are upsampled to the image's pixels, averaged where windows overlap; over several views their softmax is.
    """

    def __init__(
        self,
        model: PixelModel,
        logits: Callable[[Tensor], Tensor],
        outputs: Sequence[Sequence[int]],
        *,
        views: Views,
        device: torch.device | str,
    ) -> None:
        """What answers with these labels.

        Args:
            logits: features ``[B, C, h, w]`` of `model` → ``[B, N, h, w]``.
            outputs: for each of the K labels, which of the N it may be; an output that several labels have is the
                first one's, and a label without any is never predicted.
        """
        one_hot = np.eye(max(max(own, default=0) for own in outputs) + 1, dtype=np.float32)
        self._labels = LabelVectors((), several=[one_hot[list(own)] for own in outputs])
        self._used = len(one_hot)
        self.positions, self.predicted_as = self._labels.positions, self._labels.predicted_as
        self.views, self.device = views, torch.device(device)
        self._model = _WithLogits(model, lambda features: logits(features)[:, : self._used])

    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The logits, or the mean probabilities of several views."""
        return self._stripes(image, probabilities=False)

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The softmax of the logits of the labels asked for, averaged over the views."""
        return self._stripes(image, probabilities=True)

    def protocol(self) -> Mapping[str, Any]:
        """How logits become labels."""
        return {
            "windows": "logits averaged where windows overlap; the last of each row and column ends at the border",
            "decision": "largest mean of softmax(logits) over the views" if self.views.several else "largest logit",
        }

    def _stripes(self, image: npt.NDArray[np.uint8], *, probabilities: bool) -> Iterator[tuple[slice, Tensor]]:
        return stripes(
            self._model,
            image,
            self._labels,
            tau=1.0,
            views=self.views,
            device=self.device,
            probabilities=probabilities,
            cosine=False,
        )


class _WithLogits:
    """A network that ends in logits, for `stripes`."""

    def __init__(self, model: PixelModel, logits: Callable[[Tensor], Tensor]) -> None:
        self._model, self._logits = model, logits

    @property
    def stride(self) -> int:
        return self._model.stride

    def normalise(self, images: Tensor) -> Tensor:
        return self._model.normalise(images)

    def __call__(self, images: Tensor, /) -> Tensor:
        return self._logits(self._model(images))
