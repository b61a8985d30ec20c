"""Samples of different datasets in one image: MDP's region mixing (eq. 5) and pixel mixing (eq. 6)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.methods.mdp.settings import MdpSettings
from labelmerge.methods.mixing import facts_of_all_processes, of_all_processes, partners, rectangle
from labelmerge.processes import Ranks

_AREA = (0.1, 0.5)  # share of an image that a region covers


def mixed(
    batch: Batch, generator: torch.Generator, settings: MdpSettings, numbers: list[int], ranks: Ranks
) -> tuple[Batch, Batch]:
    """The samples of a view, some of them mixed with samples of other datasets (of any, where there is one alone).

    Args:
        generator: equal in all processes.
        numbers: the dataset of each sample.

    Returns:
        Two batches of the same images. The masks of the first are of the samples, and where a region was cut in, of
        the region; those of the second are of whatever was mixed in pixel by pixel. `Batch.shares` says how much of the
        loss each has: λ and 1 − λ (eq. 7). With `Batch.closed`, masks of regions are in the second, too, with all of
        the loss: what competes at them is another sample's.
    """
    whole = batch.whole
    coins, boxes = torch.rand(whole, 2, generator=generator), torch.rand(whole, 4, generator=generator)
    order = torch.rand(whole, whole, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    weights = np.random.default_rng(seed).beta(settings.mix_alpha, settings.mix_alpha, whole)
    places = torch.tensor(batch.places)
    kinds = torch.tensor(numbers)
    all_images, all_masks = of_all_processes(ranks, batch.images, batch.masks)
    all_kinds, all_places = facts_of_all_processes(ranks, batch.images.device, kinds, places)
    may = kinds[:, None] != all_kinds[None]
    if not may.any():
        may = places[:, None] != all_places[None]
    images, masks, others = batch.images.clone(), batch.masks.clone(), torch.full_like(batch.masks, IGNORE)
    closed = None if batch.closed is None else batch.closed.clone()
    all_closed = None if batch.closed is None else of_all_processes(ranks, batch.closed)[0]
    shares, rest = [1.0] * len(batch), [0.0] * len(batch)
    height, width = masks.shape[1:]
    for row, partner in enumerate(partners(order, batch.places, all_places.tolist(), may)):
        place = batch.places[row]
        if partner < 0 or coins[place, 0] >= settings.mix_share:
            continue
        if settings.mix == "region" or (settings.mix == "both" and coins[place, 1] < 0.5):
            down, across = rectangle(boxes[place].tolist(), height, width, *_AREA)
            images[row, :, down, across] = all_images[partner, :, down, across]
            if closed is None:
                masks[row, down, across] = all_masks[partner, down, across]
            else:
                masks[row, down, across], rest[row] = IGNORE, 1.0
                others[row, down, across] = all_masks[partner, down, across]
        else:
            shares[row] = float(weights[place])
            images[row] = blended(batch.images[row], all_images[partner], shares[row])
            others[row] = all_masks[partner]
        if closed is not None and all_closed is not None:
            closed[row] = all_closed[partner]
    own, more = at_once(torch.tensor([shares, rest]), batch.images.device)
    return replace(batch, images=images, masks=masks, shares=own), replace(
        batch, images=images, masks=others, shares=torch.where(more > 0, more, 1 - own), closed=closed
    )


def blended(image: Tensor, other: Tensor, share: float) -> Tensor:
    """The weighted mean of two uint8 images, rounded."""
    return (share * image.float() + (1 - share) * other.float()).round().to(torch.uint8)
