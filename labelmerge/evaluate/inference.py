"""One image and any list of label vectors → the class of every pixel.

The whole image goes through the model at once (no crops, no sliding window). Training compares the *upsampled*
embedding of a pixel with the label vectors (Yin et al., IJCV 2024, eq. 1-2); so does this, without ever upsampling an
embedding. With e = Σ_i w_i v_i, the bilinear mix of the four low-resolution embeddings around a pixel:

- e · label = Σ_i w_i (v_i · label): the logits are computed at low resolution and upsampled;
- |e|² = Σ_i Σ_j w_i w_j (v_i · v_j): ten inner products between neighbours, which exist at low resolution too.

For one view |e| is the same positive factor for all labels, so the largest dot product is the largest cosine and |e| is
not needed. For several views (scales, mirror images) the softmax probabilities of the cosines over the temperature are
averaged at the image's own resolution. The image is worked through in stripes of rows: no tensor of height · width ·
channels, nor of height · width · labels, exists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.errors import BankError, SampleError, UsageError
from labelmerge.model.device import is_out_of_memory

_STRIPE_ELEMENTS = 2**24  # labels x rows x width of one stripe: 64 MiB of float32, a few times over


class PixelModel(Protocol):
    """What inference needs of a model (`labelmerge.model.build.SegmentationModel` has it).

    Called with normalised images ``[B, 3, H, W]`` of any size, it returns pixel embeddings ``[B, C, ⌈H/s⌉, ⌈W/s⌉]``,
    each of which stands for s × s pixels.
    """

    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def stride(self) -> int: ...
    def __call__(self, images: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Views:
    """How an image is shown to the model.

    Attributes:
        short_edge: pixels of the short edge at scale 1, up or down; 0 keeps the image's own size.
        scales: factors on that size; more than one are averaged.
        flip: also every scale's mirror image.
        max_long_edge: no view is longer than this many pixels (extreme panoramas, little memory); 0: no limit.
    """

    short_edge: int = 0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    max_long_edge: int = 0

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 16 for scale in self.scales):
            raise UsageError(f"scales must be numbers above 0 and up to 16, not {list(self.scales)}")
        if min(self.short_edge, self.max_long_edge) < 0:
            raise UsageError("an edge can't have fewer than 0 pixels")

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of the view at each scale."""
        base = self.short_edge / min(height, width) if self.short_edge else 1.0
        limit = self.max_long_edge / max(height, width) if self.max_long_edge else math.inf
        factors = [min(base * scale, limit) for scale in self.scales]
        return [(max(1, round(height * factor)), max(1, round(width * factor))) for factor in factors]


class LabelVectors:
    """Label vectors made ready for `segment`: unit length, each distinct one once.

    Labels with equal vectors are one label, and the first of them is predicted. A label whose vector is zero is never
    predicted (a baseline may know no such label).

    Attributes:
        unit: float32 ``[U, D]``, the distinct vectors at unit length.
        positions: int64 ``[U]``, the label that each of them stands for, ascending.
        predicted_as: int64 ``[K]``, the label that is predicted for each label: itself, an earlier one with the same
            vector, or -1 where its vector is zero.
    """

    def __init__(self, vectors: npt.ArrayLike) -> None:
        """`vectors`: ``[K, D]``. Raises BankError where all are zero."""
        given = np.asarray(vectors, dtype=np.float32)
        first: dict[bytes, int] = {}
        self.predicted_as = np.full(len(given), -1, dtype=np.int64)
        for position, vector in enumerate(given):
            if vector.any():
                content = (vector + 0.0).tobytes()  # + 0.0: minus zero equals zero
                self.predicted_as[position] = first.setdefault(content, position)
        if not first:
            raise BankError(f"none of the {len(given)} labels has a vector", fix="All of them are zero")
        self.positions = np.array(list(first.values()), dtype=np.int64)
        distinct = given[self.positions].astype(np.float64)
        self.unit = (distinct / np.linalg.norm(distinct, axis=1, keepdims=True)).astype(np.float32)


def segment(
    model: PixelModel,
    image: npt.NDArray[np.uint8],
    labels: LabelVectors | npt.ArrayLike,
    *,
    tau: float,
    views: Views | None = None,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.int64]:
    """The label of every pixel: its position in `labels`.

    Every view is the image resized (bilinear, antialiased) and normalised. Logits are sampled at the centres of the
    image's own pixels.

    Args:
        model: image → pixel embeddings, in evaluation mode, on `device`.
        image: ``[H, W, 3]`` RGB.
        labels: ``[K, D]`` label vectors, or the same made ready once for many images.
        tau: the learned temperature; matters only where several views are averaged.
        views: how the image is shown to the model; by default once, at its own size.

    Returns:
        ``[H, W]`` positions 0..K-1. Among equal logits the first label wins.

    Raises:
        BankError: all label vectors are zero, or their dimension isn't the model's.
        SampleError: the image is too large for the device's memory.
    """
    labels = labels if isinstance(labels, LabelVectors) else LabelVectors(labels)
    views = views or Views()
    try:
        return _segment(model, image, labels, tau, views, torch.device(device))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = max(views.sizes(*image.shape[:2]))
        raise SampleError(
            f"at {width}x{height} pixels the image does not fit into the memory of {device}",
            fix="Use a smaller --short-edge or scale"
            + (", or --device cpu" if torch.device(device).type != "cpu" else ""),
        ) from error


def _segment(
    model: PixelModel,
    image: npt.NDArray[np.uint8],
    labels: LabelVectors,
    tau: float,
    views: Views,
    device: torch.device,
) -> npt.NDArray[np.int64]:
    height, width = image.shape[:2]
    with torch.inference_mode():
        pixels = torch.from_numpy(image.copy()).to(device)  # torch wants an array that it may write to
        pixels = pixels.permute(2, 0, 1)[None].float() / 255
        unit = torch.from_numpy(labels.unit).to(device)
        mirrored = (False, True) if views.flip else (False,)
        several = len(views.scales) * len(mirrored) > 1
        seen = [
            _LowResolution.of(model, pixels, size, mirror, unit, norms=several)
            for size in views.sizes(height, width)
            for mirror in mirrored
        ]
        classes = torch.empty((height, width), dtype=torch.int64, device=device)
        stripe = max(1, _STRIPE_ELEMENTS // (len(unit) * width))
        for top in range(0, height, stripe):
            rows = slice(top, min(top + stripe, height))
            if several:
                votes = torch.zeros((), device=device)
                for view in seen:
                    cosines = view.dot_products(rows) / view.lengths(rows)
                    votes = votes + torch.softmax(cosines / tau, dim=0)
            else:
                votes = seen[0].dot_products(rows)
            classes[rows] = votes.argmax(dim=0)
        found: npt.NDArray[np.int64] = labels.positions[classes.cpu().numpy()]
        return found


@dataclass(frozen=True)
class _LowResolution:
    """One view after the model, and where the image's pixels lie in it.

    y, x: for each row and column of the image the low-resolution index before it and the weight of the one after it.
    """

    logits: Tensor  # [U, h, w] dot products with the unit label vectors
    products: tuple[Tensor, ...]  # inner products [h, w] of each embedding with itself and its neighbours; or none
    y: tuple[Tensor, Tensor]
    x: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, model: PixelModel, pixels: Tensor, size: tuple[int, int], mirror: bool, unit: Tensor, *, norms: bool
    ) -> _LowResolution:
        height, width = pixels.shape[2:]
        view = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (pixels.new_tensor(list(values)).reshape(1, 3, 1, 1) for values in (model.mean, model.std))
        view = (view - mean) / std
        embeddings = model(view.flip(3) if mirror else view)[0].float()  # [C, h, w]
        if len(embeddings) != unit.shape[1]:
            raise BankError(
                f"the label vectors have {unit.shape[1]} dimensions, the model's pixel embeddings {len(embeddings)}",
                fix="Use the bank that the model was trained with",
            )
        y = _neighbours(height, embeddings.shape[1], size[0] / height / model.stride, unit.device)
        x = _neighbours(width, embeddings.shape[2], size[1] / width / model.stride, unit.device)
        if mirror:
            x = (x[0].flip(0), x[1].flip(0))
        logits = torch.einsum("ud,dhw->uhw", unit, embeddings)
        return cls(logits, _inner_products(embeddings) if norms else (), y, x)

    def dot_products(self, rows: slice) -> Tensor:
        """[U, rows, W] upsampled logits."""
        above, down = self.y[0][rows], self.y[1][rows, None]
        left, right = self.x
        below = (above + 1).clamp(max=self.logits.shape[1] - 1)
        beside = (left + 1).clamp(max=self.logits.shape[2] - 1)
        first = int(above[0])
        band = self.logits[:, first : int(below[-1]) + 1]
        # Columns first: there are fewer rows yet.
        band = torch.lerp(band.index_select(2, left), band.index_select(2, beside), right)
        return torch.lerp(band.index_select(1, above - first), band.index_select(1, below - first), down)

    def lengths(self, rows: slice) -> Tensor:
        """[rows, W] length of the upsampled embedding."""
        own, beside, below, falling, rising = self.products
        above, down = self.y[0][rows, None], self.y[1][rows, None]
        left, right = self.x
        under, next_ = (above + 1).clamp(max=own.shape[0] - 1), (left + 1).clamp(max=own.shape[1] - 1)
        up, back = 1 - down, 1 - right

        def across(row: Tensor) -> Tensor:  # |back · v(left) + right · v(next)|² within one row
            return back**2 * own[row, left] + 2 * back * right * beside[row, left] + right**2 * own[row, next_]

        between = (
            back**2 * below[above, left]
            + right**2 * below[above, next_]
            + back * right * (falling[above, left] + rising[above, left])
        )
        squared = up**2 * across(above) + down**2 * across(under) + 2 * up * down * between
        return squared.clamp(min=1e-24).sqrt()


def _neighbours(size: int, low: int, step: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """For `size` pixels that lie `step` apart among `low`: the index before each ``[size]``, the weight of the next.

    Pixel centres, as in ``interpolate(align_corners=False)``; what lies outside the outermost centres takes them.
    """
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * step - 0.5).clamp(0, low - 1)
    before = at.floor()
    return before.long().to(device), (at - before).float().to(device)


def _inner_products(v: Tensor) -> tuple[Tensor, ...]:
    """Of ``[C, h, w]``: v·v, v·right, v·below, v·(below right), right·below, each ``[h, w]``; edges repeat."""
    right = torch.cat([v[:, :, 1:], v[:, :, -1:]], dim=2)
    below = torch.cat([v[:, 1:], v[:, -1:]], dim=1)
    diagonal = torch.cat([right[:, 1:], right[:, -1:]], dim=1)
    pairs: Sequence[tuple[Tensor, Tensor]] = ((v, v), (v, right), (v, below), (v, diagonal), (right, below))
    return tuple((a * b).sum(dim=0) for a, b in pairs)
