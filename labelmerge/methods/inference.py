"""One image and any list of label vectors → the class of every pixel.

Training compares the *upsampled* embedding of a pixel with the label vectors (Yin et al., IJCV 2024, eq. 1-2). This
does the same without upsampling an embedding. With e = Σ_i w_i v_i, the bilinear mix of the four low-resolution
embeddings around a pixel:

- e · label = Σ_i w_i (v_i · label): the logits are computed at low resolution and upsampled;
- |e|² = Σ_i Σ_j w_i w_j (v_i · v_j): ten inner products between neighbours, which exist at low resolution too.

Seen once and whole, |e| is the same positive factor for all labels, so the largest dot product is the largest cosine
and |e| is not needed. Where windows overlap, the cosines of all windows that hold a pixel are averaged; over several
views (scales, mirror images) the softmax probabilities of the cosines over the temperature. A label with several
vectors has the largest of their cosines. All of it happens at the image's own resolution, in stripes of rows: no tensor
of height · width · channels, nor of height · width · labels, exists. Windows are shown to the model when a stripe first
needs them, and forgotten after the last that does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.device import at_once
from labelmerge.errors import BankError
from labelmerge.methods.predictor import Predictor
from labelmerge.model.views import View, Views

_STRIPE_ELEMENTS = 2**24  # labels x rows x width of one stripe: 64 MiB of float32, a few times over
_BLOCK_ELEMENTS = 2**22  # channels x rows x width from which inner products are taken at once
_WINDOWS_AT_ONCE = 4  # in one call of the model


class PixelModel(Protocol):
    """What inference needs from a model (`labelmerge.model.build.SegmentationModel` has it).

    Called with normalised images ``[B, 3, H, W]`` of any size, it returns pixel embeddings ``[B, C, ⌈H/s⌉, ⌈W/s⌉]``,
    each of which stands for s × s pixels.
    """

    @property
    def stride(self) -> int: ...
    def normalise(self, images: Tensor) -> Tensor:
        """Images within 0..1, ``[…, 3, H, W]``, as the network wants them."""

    def __call__(self, images: Tensor, /) -> Tensor: ...


class LabelVectors:
    """Label vectors made ready for `segment`: unit length, each distinct one once.

    A label may have several vectors; its score is the largest of theirs. A vector that several labels share is the
    first label's: labels with equal vectors are one label, and the first of them is predicted. A label whose vectors
    are all zero is never predicted (a baseline may not know the label).

    Attributes:
        vectors: float32 ``[U, D]``, the distinct vectors, those of one label side by side, each of length 1 / divisor.
        positions: int64 ``[P]``, the labels that they stand for, ascending.
        counts: int64 ``[P]``, how many vectors each of those labels has; they sum to U.
        predicted_as: int64 ``[K]``, the label that is predicted for each label: itself, an earlier one that has its
            first vector, or -1 where it has no vector.
    """

    def __init__(
        self,
        vectors: npt.ArrayLike,
        several: Sequence[npt.NDArray[np.float32]] | None = None,
        divisors: Sequence[npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """`vectors`: ``[K, D]``, one for each label; or else `several`, ``[n, D]`` for each of the K labels, with
        `divisors`, ``[n]``, by which a vector's cosine is divided; 1 where it is None.

        Raises BankError where all are zero, or some are not finite.
        """
        given = np.asarray(vectors, dtype=np.float32)[:, None] if several is None else several
        parts = [np.ones(len(own), np.float32) for own in given] if divisors is None else divisors
        owner: dict[bytes, int] = {}
        self.predicted_as = np.full(len(given), -1, dtype=np.int64)
        distinct, lengths = [], []
        for position, (own, own_parts) in enumerate(zip(given, parts, strict=True)):
            firsts = []
            for vector, divisor in zip(own, own_parts, strict=True):
                if vector.any():
                    content = (vector + np.float32(0)).tobytes()  # + 0: minus zero equals zero
                    if content not in owner:
                        distinct.append(vector)
                        lengths.append(float(np.linalg.norm(vector.astype(np.float64))) * float(divisor))
                    firsts.append(owner.setdefault(content, position))
            if firsts:
                self.predicted_as[position] = position if position in firsts else firsts[0]
        if not owner:
            raise BankError(f"none of the {len(given)} labels has a vector", fix="All of them are zero")
        owners = np.array(list(owner.values()), dtype=np.int64)
        self.positions, self.counts = np.unique(owners, return_counts=True)
        wide = np.stack(distinct).astype(np.float64)
        self.vectors = (wide / np.array(lengths)[:, None]).astype(np.float32)

    def of_labels(self, scores: Tensor) -> Tensor:
        """The scores of the labels from those of their vectors, ``[U, …]`` → ``[P, …]``: the largest of each."""
        if len(self.positions) == len(self.vectors):
            return scores
        spans = zip(self.counts.cumsum().tolist(), self.counts.tolist(), strict=True)
        return torch.stack([scores[end - count : end].amax(dim=0) for end, count in spans])


class CosinePredictor(Predictor):
    """The label whose vector is nearest to a pixel's embedding, by the cosine."""

    def __init__(
        self, model: PixelModel, labels: LabelVectors, *, tau: float, views: Views, device: torch.device | str
    ) -> None:
        """`tau`: the learned temperature; matters only where several views are averaged."""
        self.positions, self.predicted_as = labels.positions, labels.predicted_as
        self.views, self.device = views, torch.device(device)
        self._model, self._labels, self._tau = model, labels, tau

    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """As `stripes`."""
        return stripes(self._model, image, self._labels, tau=self._tau, views=self.views, device=self.device)

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """The softmax of the cosines over the temperature, averaged over the views."""
        return stripes(
            self._model, image, self._labels, tau=self._tau, views=self.views, device=self.device, probabilities=True
        )

    def protocol(self) -> Mapping[str, Any]:
        """How cosines become labels."""
        several = "largest mean of softmax(cosine / temperature) over the views"
        several_vectors = len(self._labels.vectors) > len(self.positions)
        return {
            "windows": "cosines averaged where windows overlap; the last of each row and column ends at the border",
            "decision": several if self.views.several else "largest cosine",
            "temperature": self._tau,
            **({"score": "the largest cosine of a label's vectors"} if several_vectors else {}),
        }


def segment(
    model: PixelModel,
    image: npt.NDArray[np.uint8],
    labels: LabelVectors | npt.ArrayLike,
    *,
    tau: float,
    views: Views | None = None,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.int64]:
    """The label of every pixel of one image: its position in `labels`.

    Every view is the image resized (bilinear, antialiased) and normalised. Logits are sampled at the centres of the
    image's own pixels.

    Args:
        model: image → pixel embeddings, in evaluation mode, on `device`.
        image: ``[H, W, 3]`` RGB.
        labels: ``[K, D]`` label vectors, or the same made ready once for many images.
        tau: the learned temperature; matters only where several views are averaged.
        views: how the image is shown to the model; by default once, whole, at its own size.

    Returns:
        ``[H, W]`` positions 0..K-1. Among equal logits the first label wins.

    Raises:
        BankError: all label vectors are zero, or their dimension isn't the model's.
        SampleError: the image is too large for the device's memory, or the model's embeddings are not finite.
    """
    labels = labels if isinstance(labels, LabelVectors) else LabelVectors(labels)
    return CosinePredictor(model, labels, tau=tau, views=views or Views(), device=device).classes(image)


@torch.inference_mode()
def stripes(
    model: PixelModel,
    image: npt.NDArray[np.uint8],
    labels: LabelVectors,
    *,
    tau: float,
    views: Views,
    device: torch.device | str = "cpu",
    probabilities: bool = False,
    cosine: bool = True,
) -> Iterator[tuple[slice, Tensor]]:
    """The scores by which `segment` decides, one stripe of rows after the other.

    Args:
        probabilities: softmax probabilities also where there is one view only.
        cosine: scores are cosines; without, dot products throughout, of vectors and pixels as they are.

    Yields:
        The rows, and float32 ``[P, rows, W]``, the scores of the labels that can be told apart: the mean probabilities
        where there are several views, else the mean cosines over the windows; seen once and whole, their dot products.

    Raises:
        BankError: the vectors' dimension isn't the model's.
    """
    height, width = image.shape[:2]
    device = torch.device(device)
    vectors = at_once(torch.from_numpy(labels.vectors), device)
    stripe = max(1, _STRIPE_ELEMENTS // (len(vectors) * width))
    pixels = at_once(torch.from_numpy(image.copy()), device)  # torch wants an array that it may write to
    pixels = pixels.permute(2, 0, 1)[None].float() / 255
    shown = {size: model.normalise(resized(pixels, size)) for size in views.sizes(height, width)}
    several, size, seen = views.several or probabilities, (height, width), []
    for one in views.of(height, width):
        norms = cosine and (several or not one.whole)
        seen.append(_Seen(model, shown[one.height, one.width], size, one, vectors, norms=norms))
    del shown, pixels  # each view drops its own when the model has seen all of it
    for top in range(0, height, stripe):
        rows = slice(top, min(top + stripe, height))
        if several:
            scores = vectors.new_zeros(len(labels.positions), rows.stop - top, width)
            for view in seen:
                scores += labels.of_labels(view.scores(rows)).div_(tau).softmax(dim=0)
            scores /= len(seen)
        else:
            scores = labels.of_labels(seen[0].scores(rows))
        yield rows, scores


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """[3, h, w]: the image, ``[1, 3, H, W]``, at this size."""
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)[0]


class _Seen:
    """One view, and what the model says of its windows: row by row of windows, as the stripes come by."""

    def __init__(
        self, model: PixelModel, shown: Tensor, size: tuple[int, int], view: View, vectors: Tensor, *, norms: bool
    ) -> None:
        """`shown`: the whole view, ``[3, h, w]``; `size`: (height, width) of the image."""
        self._model, self._pixels, self._size, self._view, self._vectors = model, shown, size, view, vectors
        self._norms = norms
        axis = partial(Axis.of, stride=model.stride, device=vectors.device)
        self._down = [axis(self._size[0], view.height, top, view.window_height) for top in view.tops]
        self._across = [axis(self._size[1], view.width, left, view.window_width, view.mirror) for left in view.lefts]
        self._rows: dict[int, list[_Window]] = {}

    def scores(self, rows: slice) -> Tensor:
        """[U, rows, W]: the mean cosines over the windows, or dot products where cosines aren't wanted.

        Stripes must be asked for from top to bottom.
        """
        if self._view.whole:
            return self._windows(0)[0].scores(rows)
        total = self._vectors.new_zeros(len(self._vectors), rows.stop - rows.start, self._size[1])
        counts = self._vectors.new_zeros(rows.stop - rows.start, self._size[1])
        for number, axis in enumerate(self._down):
            first, last = max(axis.covers.start, rows.start), min(axis.covers.stop, rows.stop)
            if first < last:
                here = slice(first - rows.start, last - rows.start)
                within = slice(first - axis.covers.start, last - axis.covers.start)
                for window in self._windows(number):
                    total[:, here, window.x.covers] += window.scores(within)
                    counts[here, window.x.covers] += 1
            if axis.covers.stop <= rows.stop:
                self._rows.pop(number, None)
        return total.div_(counts)

    def _windows(self, number: int) -> list[_Window]:
        """The windows of one row, from left to right."""
        if number not in self._rows:
            view, made = self._view, []
            top = view.tops[number]
            cut = self._pixels[:, top : top + view.window_height]
            for first in range(0, len(view.lefts), _WINDOWS_AT_ONCE):
                lefts = view.lefts[first : first + _WINDOWS_AT_ONCE]
                batch = torch.stack([cut[:, :, left : left + view.window_width] for left in lefts])
                embeddings = self._model(batch.flip(3) if view.mirror else batch).float()
                if embeddings.shape[1] != self._vectors.shape[1]:
                    raise BankError(
                        f"the label vectors have {self._vectors.shape[1]} dimensions, the model's pixel embeddings "
                        f"{embeddings.shape[1]}",
                        fix="Use the bank that the model was trained with",
                    )
                made += [
                    _Window(
                        logits=torch.einsum("ud,dhw->uhw", self._vectors, each),
                        products=_inner_products(each) if self._norms else None,
                        y=self._down[number],
                        x=x,
                    )
                    for each, x in zip(embeddings, self._across[first:], strict=False)
                ]
            self._rows[number] = made
            if number == len(view.tops) - 1:
                del self._pixels  # the model has seen them all
        return self._rows[number]


@dataclass(frozen=True)
class Axis:
    """Where the image's pixels lie in a window, along one direction.

    Attributes:
        covers: the pixels whose centres the window holds.
        before: int64, for each of them the embedding before its centre.
        share: float32, the weight of the embedding after it.
        after: int64, that embedding.
        before_here, after_here: the same on the CPU, which can be read without waiting for a GPU.
    """

    covers: slice
    before: Tensor
    share: Tensor
    after: Tensor
    before_here: Tensor
    after_here: Tensor

    @classmethod
    def of(
        cls, size: int, extent: int, start: int, length: int, mirror: bool = False, *, stride: int, device: torch.device
    ) -> Axis:
        """For `size` pixels of the image, which the view shows as `extent`; the window is `length` of those.

        Pixel centres, as in ``interpolate(align_corners=False)``; what lies outside the outermost centres takes them.
        """
        at = (torch.arange(size, dtype=torch.float64) + 0.5) * (extent / size)
        first, last = torch.searchsorted(at, torch.tensor([start, start + length], dtype=torch.float64)).tolist()
        inside = at[first:last] - start
        place = ((length - inside if mirror else inside) / stride - 0.5).clamp(0, -(-length // stride) - 1)
        before = place.floor().long()
        after = (before + 1).clamp(max=-(-length // stride) - 1)
        on_device = partial(at_once, device=device)
        return cls(
            slice(first, last), on_device(before), on_device((place - before).float()), on_device(after), before, after
        )


@dataclass(frozen=True)
class _Window:
    """One window after the model. Rows are counted from the first that it covers."""

    logits: Tensor  # [U, h, w] dot products with the label vectors
    products: Tensor | None  # [5, h, w] inner products of each embedding with itself and its neighbours, if needed
    y: Axis
    x: Axis

    def scores(self, rows: slice) -> Tensor:
        """[U, rows, columns covered]: cosines, or dot products where lengths aren't needed."""
        products = self.dot_products(rows)
        return products if self.products is None else products.div_(self.lengths(rows))

    def dot_products(self, rows: slice) -> Tensor:
        """[U, rows, columns covered], upsampled logits."""
        above, below, down = self.y.before[rows], self.y.after[rows], self.y.share[rows, None]
        first = int(self.y.before_here[rows][0])
        band = self.logits[:, first : int(self.y.after_here[rows][-1]) + 1]
        # Columns first: there are fewer rows yet.
        band = torch.lerp(band.index_select(2, self.x.before), band.index_select(2, self.x.after), self.x.share)
        return torch.lerp(band.index_select(1, above - first), band.index_select(1, below - first), down)

    def lengths(self, rows: slice) -> Tensor:
        """[rows, columns covered], length of the upsampled embedding."""
        assert self.products is not None
        own, beside, below, falling, rising = self.products.unbind()
        above, under, down = self.y.before[rows, None], self.y.after[rows, None], self.y.share[rows, None]
        left, right, share = self.x.before, self.x.after, self.x.share
        up, back = 1 - down, 1 - share

        def across(row: Tensor) -> Tensor:  # |back · v(left) + share · v(right)|² within one row
            return back**2 * own[row, left] + 2 * back * share * beside[row, left] + share**2 * own[row, right]

        between = (
            back**2 * below[above, left]
            + share**2 * below[above, right]
            + back * share * (falling[above, left] + rising[above, left])
        )
        squared = up**2 * across(above) + down**2 * across(under) + 2 * up * down * between
        return squared.clamp(min=1e-24).sqrt()


def _inner_products(v: Tensor) -> Tensor:
    """Of ``[C, h, w]``: v·v, v·right, v·below, v·(below right), right·below, as ``[5, h, w]``; edges repeat."""
    channels, height, width = v.shape
    out = v.new_empty(5, height, width)
    beside = (torch.arange(width, device=v.device) + 1).clamp(max=width - 1)
    under = (torch.arange(height, device=v.device) + 1).clamp(max=height - 1)
    block = max(1, _BLOCK_ELEMENTS // (channels * width))
    for top in range(0, height, block):
        rows = slice(top, min(top + block, height))
        own, below = v[:, rows], v[:, under[rows]]
        right, diagonal = own[:, :, beside], below[:, :, beside]
        for number, (a, b) in enumerate(((own, own), (own, right), (own, below), (own, diagonal), (right, below))):
            torch.sum(a * b, dim=0, out=out[number, rows])
    return out
