"""How a run draws its training views: one way for all datasets, and others for single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labelmerge.errors import did_you_mean
from labelmerge.settings import Setting, parse

if TYPE_CHECKING:
    from labelmerge.loading.augment import Augmentation

VIEW_SETTINGS = ("crop", "short_edge", "scale_min", "scale_max", "flip", "colour", "blur", "jpeg")
"""The settings of training that a table ``[views.DATASET]`` may hold for one dataset."""


def view_problems(own: Mapping[str, Mapping[str, Any]], declared: Sequence[Setting], common: Any) -> list[str]:
    """What is wrong with the views of single datasets, in words.

    Args:
        own: settings by dataset.
        declared: what training declares.
        common: the settings of all datasets, as attributes.
    """
    known = [each for each in declared if each.name in VIEW_SETTINGS]
    wrong = []
    for dataset, table in own.items():
        values, faults = parse(known, {name: value for name, value in table.items() if name != "crop"})
        crop = table.get("crop", common.crop)
        if not _sides(crop):
            faults.append(f"crop must be a side or [height, width] in pixels, each at least 1, not {crop!r}")
        low, high = (values.get(name, getattr(common, name)) for name in ("scale_min", "scale_max"))
        if low > high:
            faults.append(f"scale_min {low} must not be above scale_max {high}")
        wrong += [f"views.{dataset}: {fault}" for fault in faults]
    return wrong


def augmentations(config: Any, datasets: Sequence[str]) -> tuple[Augmentation, dict[str, Augmentation], list[str]]:
    """How views are drawn.

    Args:
        config: the settings of training.
        datasets: those of the run.

    Returns:
        The common way, the ways of single datasets of the run, and a line for each table of a dataset that isn't here.
    """
    from labelmerge.loading.augment import Augmentation
    from labelmerge.loading.datasets import UNLABELLED

    common = Augmentation(
        crop=config.crop,
        short_edge=config.short_edge,
        scale=(config.scale_min, config.scale_max),
        flip=config.flip,
        colour=config.colour,
        blur=config.blur,
        jpeg=config.jpeg,
    )
    own = {}
    for dataset in datasets:  # images without their labels are seen as with them
        table = dict(config.views.get(dataset, config.views.get(dataset.removesuffix(UNLABELLED), {})))
        if not table:
            continue
        low, high = table.pop("scale_min", config.scale_min), table.pop("scale_max", config.scale_max)
        crop = _sides(table.pop("crop", config.crop)) or common.crop
        own[dataset] = replace(common, crop=crop, scale=(float(low), float(high)), **table)
    absent = [
        f"views.{name} is for a dataset that is not trained on ({did_you_mean(name, datasets).rstrip('.')})"
        for name in config.views
        if name not in datasets
    ]
    return common, own, absent


def _sides(crop: Any) -> int | tuple[int, int] | None:
    """A crop as `Augmentation` wants it; None where it is none."""
    sides = crop if isinstance(crop, list | tuple) else [crop]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if not whole or len(sides) not in (1, 2) or (isinstance(crop, list | tuple) and len(sides) == 1):
        return None
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] != sides[1] else sides[0]
