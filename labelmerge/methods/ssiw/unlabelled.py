"""SSIW's losses on unlabelled images: be sure of some label (entropy), or of the same one in every view (consistency).

Entropy is USSS's (Kalluri et al., ICCV 2019, eq. 3–4), with the bank's vectors in place of centroids. Consistency is
weak-to-strong (FixMatch, Sohn et al., NeurIPS 2020; UniMatch, Yang et al., CVPR 2023): an average of the network's
weights, the teacher, labels a view; the network is to find the same in a strongly changed copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from labelmerge.labels import IGNORE
from labelmerge.loading.augment import blur, change_colours
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import DatasetShards
from labelmerge.losses import pixel_cosine_loss
from labelmerge.methods.mixing import facts_of_all_processes, of_all_processes, partners, rectangle
from labelmerge.model.build import SegmentationModel
from labelmerge.processes import Ranks

# Of strong views, as UniMatch's: how far colours change and how often, how often grey, how often blurred and how much.
_COLOUR, _COLOURED, _GREY, _BLUR, _SIGMA = 0.5, 0.8, 0.2, 0.5, (0.1, 2.0)
_CUT, _AREA = 0.5, (0.02, 0.4)  # how often a strong view has a part of another, and how large that is


@dataclass(frozen=True, eq=False)
class Choices:
    """The columns that pixels of each dataset may be.

    Attributes:
        names: the D datasets.
        own: bool ``[D, N]``, those of its labels; all columns for images that no labelled dataset has the labels of.
        others: for each of the D datasets bool ``[M, N]``, those of the labelled datasets with other columns, each list
            once.
    """

    names: tuple[str, ...]
    own: Tensor
    others: list[Tensor]

    @classmethod
    def of(cls, sources: Sequence[DatasetShards], allowed: Tensor) -> Choices:
        """By the columns ``[D, N]`` of each dataset's labels.

        Images have the labels of the labelled dataset of the same label space, or else of one with the same names.
        """
        labelled = {each.space.name: row for row, each in enumerate(sources) if each.annotation_type != "image"}
        alike = {sources[row].space.names: row for row in reversed(labelled.values())}
        own = [labelled.get(each.space.name, alike.get(each.space.names)) for each in sources]
        rows = [torch.ones_like(allowed[0]) if row is None else allowed[row] for row in own]
        different = {tuple(allowed[row].tolist()): row for row in reversed(labelled.values())}
        lists = [allowed[row] for row in sorted(different.values())]  # of datasets with the same columns one
        others = [[each for each in lists if row is None or not each.equal(allowed[row])] for row in own]
        names = tuple(each.dataset for each in sources)
        return cls(names, torch.stack(rows), [torch.stack(each) if each else allowed[:0] for each in others])


def unlabelled_rows(batch: Batch) -> list[int]:
    """Which samples have no labels."""
    return [row for row, kind in enumerate(batch.annotation_types) if kind == "image"]


def entropy_loss(
    embeddings: Tensor, vectors: Tensor, own: Tensor, others: Tensor, tau: Tensor, inside: Tensor | None = None
) -> Tensor:
    """The entropy of an image's pixels, on the embeddings' own grid: among its dataset's columns, plus the mean
    over the other datasets of the same among theirs.

    Args:
        embeddings: ``[C, h, w]``.
        vectors: ``[N, C]``, unit vectors.
        own: bool ``[N]``. others: bool ``[M, N]``.
        tau: the temperature.
        inside: bool ``[H, W]``, which pixels of the view count; all where it is None.

    Returns:
        A scalar, the mean over the pixels.
    """
    scores = torch.einsum("nc,chw->nhw", vectors, normalize(embeddings, dim=0)) / tau
    weights = None if inside is None else interpolate(inside[None, None].float(), scores.shape[1:], mode="area")[0, 0]

    def entropy(columns: Tensor) -> Tensor:
        log_p = scores[columns].log_softmax(0)
        of_pixels = -(log_p.exp() * log_p).sum(0)
        return of_pixels.mean() if weights is None else (of_pixels * weights).sum() / weights.sum()

    within = entropy(own)
    return within + torch.stack([entropy(columns) for columns in others]).mean() if len(others) else within


def consistency_sums(embeddings: Tensor, vectors: Tensor, found: Tensor, own: Tensor, tau: Tensor) -> Tensor:
    """Cross-entropy with what the teacher found, summed over the pixels of each image, ``[B]``.

    Args:
        embeddings: of the strong views, ``[B, C, h, w]``.
        found: columns ``[B, H, W]``, `IGNORE` where the teacher was not sure.
        own: bool ``[B, N]``.
    """
    losses = pixel_cosine_loss(embeddings, vectors, found, tau, IGNORE, allowed=own, reduction="none")
    return losses.flatten(1).sum(1)


@torch.no_grad()
def with_strong_views(
    batch: Batch,
    generator: torch.Generator,
    teacher: SegmentationModel,
    vectors: Tensor,
    choices: Choices,
    tau: Tensor,
    confidence: float,
    ranks: Ranks,
) -> tuple[Batch, Tensor]:
    """The batch with strong views in place of its unlabelled images, and as masks the columns that the teacher found
    in them; nothing is found in padding.

    Half of the strong views have a rectangle of another unlabelled image of the same dataset, with what was found
    there.

    Args:
        confidence: the least probability, among the dataset's own columns, at which a pixel is found.

    Returns:
        The batch, and of what share of the pixels that show an image something was found.
    """
    whole = batch.whole
    colours, coins = torch.rand(whole, 3, generator=generator), torch.rand(whole, 5, generator=generator)
    boxes, order = torch.rand(whole, 4, generator=generator), torch.rand(whole, whole, generator=generator)
    rows = unlabelled_rows(batch)
    numbers = [choices.names.index(name) for name in batch.datasets]
    images, masks = batch.images.clone(), batch.masks.clone()
    height, width = batch.images.shape[2:]
    sure = batch.images.new_zeros((), dtype=torch.float32)
    if rows:
        own = choices.own[[numbers[row] for row in rows]]  # [B', N]
        features = normalize(teacher(teacher.normalise(batch.images[rows])).float(), dim=1)
        scores = torch.einsum("nc,bchw->bnhw", vectors, features) / tau
        probability, column = scores.masked_fill(~own[:, :, None, None], -torch.inf).softmax(1).max(1)
        found = column.where(probability >= confidence, IGNORE)
        cells = [side * teacher.stride for side in found.shape[1:]]
        wide = interpolate(found[:, None].double(), cells, mode="nearest")[:, 0, :height, :width].long()
        if (inside := batch.inside(rows)) is not None:
            wide = wide.where(inside, IGNORE)
        masks[rows] = wide
        sure = (wide != IGNORE).float().sum() / sum(map(batch.pixels_shown, rows))
        views = batch.images[rows]
        own_places = [batch.places[row] for row in rows]
        drawn = coins[own_places].tolist()
        grey = [coin[0] < _GREY for coin in drawn]
        reach = _COLOUR * (coins[own_places, 4:] < _COLOURED)
        factors = (1 + reach * (2 * colours[own_places] - 1)).tolist()
        change_colours(views, [(b, c, 0.0 if none else s) for (b, c, s), none in zip(factors, grey, strict=True)])
        for view, coin in zip(views, drawn, strict=True):
            if coin[1] < _BLUR:
                blur(view, _SIGMA[0] + coin[2] * (_SIGMA[1] - _SIGMA[0]))
        images[rows] = views
    # Processes must all take part in gathering, with or without unlabelled images of their own.
    kinds = torch.tensor([number if row in rows else -1 for row, number in enumerate(numbers)])
    places = torch.tensor(batch.places)
    all_images, all_masks = of_all_processes(ranks, images, masks)
    images, masks = images.clone(), masks.clone()  # what is cut in is of views that nothing was cut into
    all_kinds, all_places = facts_of_all_processes(ranks, images.device, kinds, places)
    may = (kinds[:, None] == all_kinds[None]) & (kinds >= 0)[:, None] & (places[:, None] != all_places[None])
    for row, partner in enumerate(partners(order, batch.places, all_places.tolist(), may)):
        place = batch.places[row]
        if partner >= 0 and coins[place, 3] < _CUT:
            down, across = rectangle(boxes[place].tolist(), height, width, *_AREA)
            images[row, :, down, across] = all_images[partner, :, down, across]
            masks[row, down, across] = all_masks[partner, down, across]
    return replace(batch, images=images, masks=masks), sure
