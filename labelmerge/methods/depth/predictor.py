"""Images in, the depth of every pixel out, up to scale and shift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from labelmerge.device import at_once
from labelmerge.errors import SampleError, UsageError
from labelmerge.methods.depth.labels import LabelInput
from labelmerge.methods.inference import resized
from labelmerge.methods.predictor import Predictor
from labelmerge.model.views import Views

if TYPE_CHECKING:
    from labelmerge.methods.depth.learner import DepthLearner


class DepthPredictor(Predictor):
    """Depths of a whole image at once: in windows each would have a scale and shift of its own."""

    def __init__(
        self,
        learner: DepthLearner,
        labels: LabelInput | None,
        vectors: Tensor | None,
        count: int,
        *,
        views: Views,
        device: torch.device,
    ) -> None:
        """What answers.

        Args:
            vectors: ``[count, C]``, the labels' vectors where they are a second input.

        Raises:
            UsageError: the views have windows.
        """
        if views.window:
            raise UsageError("depths of windows don't fit together", fix="Leave --window out")
        self.positions = self.predicted_as = np.arange(count)
        self.views, self.device = views, device
        self._learner, self._labels, self._vectors = learner, labels, vectors

    @torch.inference_mode()
    def depth(
        self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """As in `Predictor`. Of several views the mean of their depths, each less its mean and over its deviation."""
        if self._labels is not None and labels is None:
            raise SampleError("has no labels, which this run takes as its second input")
        with self.memory_faults(image):
            pixels = at_once(torch.from_numpy(image.copy()), self.device).permute(2, 0, 1)[None].float() / 255
            maps = None
            if self._labels is not None and labels is not None:
                maps = at_once(torch.from_numpy(labels), self.device)[None]
            found = []
            for view in self.views.of(*image.shape[:2]):
                shown = resized(pixels, (view.height, view.width))[None]
                if self._labels is not None and maps is not None and self._vectors is not None:
                    own = _nearest(maps, (view.height, view.width))
                    self._labels.show(own.flip(2) if view.mirror else own, self._vectors)
                out = self._learner.depths(shown.flip(3) if view.mirror else shown).float()
                whole = self._learner.model.upsample(out, (view.height, view.width))
                whole = whole.flip(3) if view.mirror else whole
                found.append(interpolate(whole, image.shape[:2], mode="bilinear", align_corners=False)[0, 0])
            if self.views.several:
                found = [(each - each.mean()) / each.std(correction=0).clamp(min=1e-6) for each in found]
            depth: npt.NDArray[np.float32] = torch.stack(found).mean(0).cpu().numpy()
        if not np.isfinite(depth).all():
            raise SampleError("the network's answer is not a number everywhere, so no depth can be read off it")
        return depth

    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """Raises UsageError."""
        raise UsageError("this checkpoint's method gives depths, and no labels", fix="Use a run of another method")

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """Raises UsageError."""
        return self.scores(image)

    def protocol(self) -> Mapping[str, Any]:
        """How depths are predicted, for results.json."""
        several = "mean over the views, each less its mean and over its standard deviation"
        return {
            "depth": several if self.views.several else "the network's output",
            "labels_as_input": self._labels is not None,
        }


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``[B, H, W]`` at another size: the value under each new pixel's centre."""
    rows, columns = (
        (2 * torch.arange(new, device=maps.device) + 1) * old // (2 * new)
        for new, old in zip(size, maps.shape[1:], strict=True)
    )
    return maps[:, rows][:, :, columns]
