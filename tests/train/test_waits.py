"""What would make a GPU idle in every step: copies to it and from it that the losses wait for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labelmerge.loading import augment
from labelmerge.loading import batch as batches
from labelmerge.loading.augment import Photometric
from labelmerge.loading.batch import Batch, Segments
from labelmerge.losses import LabelTable, box
from labelmerge.losses.bilinear import bilinear_matrix_on
from labelmerge.merge.columns import ClassColumns
from labelmerge.methods.lmseg import losses as lmseg
from labelmerge.methods.lmseg import targets as lmseg_targets
from labelmerge.methods.lmseg.losses import Outputs, sums_of_images
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import targets_of
from labelmerge.methods.ssiw import losses as ssiw
from labelmerge.methods.ssiw.losses import Labels, ssiw_sums, ssiw_units
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import label_teacher

from ..meta_device import Watch, prepare
from ..meta_device import without_content as there

KINDS = ("mask", "noisy_mask", "box")
SIZE, DIM, LABELS = 32, 6, 5


@pytest.fixture(autouse=True)
def on_a_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    prepare(monkeypatch, augment, batches, box, ssiw, lmseg, lmseg_targets)
    yield
    bilinear_matrix_on.cache_clear()


def batch_of(datasets: list[int]) -> Batch:
    """Masks on the device, boxes on the CPU."""
    kinds = [KINDS[dataset] for dataset in datasets]
    boxes = [torch.tensor([[1.0, 2, 30, 20], [4, 4, 8, 9]])[: 2 * (kind == "box")] for kind in kinds]
    count = len(datasets)
    return Batch(
        step=0,
        images=there(torch.zeros(count, 3, SIZE, SIZE, dtype=torch.uint8)),
        masks=there(torch.zeros(count, SIZE, SIZE, dtype=torch.int64)),
        boxes=boxes,
        box_classes=[there(torch.zeros(len(each), dtype=torch.int64)) for each in boxes],
        box_embeddings=[None] * count,
        datasets=[str(dataset) for dataset in datasets],
        dataset_ids=there(torch.tensor(datasets)),
        annotation_types=kinds,
        keys=[""] * count,
        skipped=[],
        unfinished=[Photometric()] * count,
        places=list(range(count)),
        whole=count,
    )


@pytest.mark.parametrize(("own_labels", "own_lists"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("datasets", [[0, 1, 2, 0, 1, 2], [0, 0], [2, 2, 1]])
def test_a_steps_losses_wait_for_nothing(datasets: list[int], own_labels: bool, own_lists: bool) -> None:
    batch = batch_of(datasets)
    more: dict[str, Any] = {}
    if own_lists:
        batch = replace(batch, annotated=[torch.tensor([0]) if dataset else None for dataset in datasets])
        every = np.eye(LABELS, dtype=np.bool_)
        classes = {str(dataset): ClassColumns(tuple(range(LABELS)), every, every) for dataset in range(len(KINDS))}
        table = LabelTable(torch.eye(LABELS, dtype=torch.bool), torch.ones(LABELS, LABELS)).to("meta")
        more = {"table": table, "classes": classes}
    settings = SsiwSettings(negatives="own" if own_labels else "all")
    count = len(datasets)

    def step() -> Tensor:
        embeddings = torch.empty(count, DIM, SIZE // 4, SIZE // 4, device="meta", requires_grad=True)
        vectors = torch.empty(LABELS, DIM, device="meta")
        labels = Labels(vectors, torch.empty(len(KINDS), LABELS, dtype=torch.bool, device="meta"), vectors, **more)
        tau = torch.empty((), device="meta", requires_grad=True)
        units = ssiw_units(batch, len(KINDS), settings)
        sums = ssiw_sums(batch, embeddings, labels, tau, label_teacher, settings)
        return torch.autograd.grad((sums / units).sum(), embeddings)[0]

    step()  # what stays the same is copied once
    with Watch() as watch:
        assert step().shape == (count, DIM, SIZE // 4, SIZE // 4)
    assert watch.found == []


@pytest.mark.parametrize("datasets", [[0], [0, 1, 2, 0, 1, 2, 0, 0]])
def test_queries_are_matched_in_one_look_whatever_the_images_and_layers(
    datasets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(datasets)
    count, (layers, queries) = len(datasets), (3, 4)
    segments = Segments(*(there(torch.zeros(2, dtype=kind)) for kind in (torch.int64, torch.int64, torch.bool)))
    batch = replace(
        batch,
        instances=there(torch.zeros(count, SIZE, SIZE, dtype=torch.int32)),
        segments=[segments if dataset == 0 else None for dataset in datasets],
    )
    looks: list[torch.Size] = []

    def read(tensor: Tensor) -> Tensor:
        looks.append(tensor.shape)
        seen = torch.ones(tensor.shape, dtype=tensor.dtype)
        if len(looks) == 1:  # the regions of each view: none, its segments, the labels
            seen[torch.tensor(datasets) != 0, 1:3] = False
        return seen

    monkeypatch.setattr(Tensor, "cpu", read)
    logits = torch.empty(count, layers, queries, LABELS + 1, device="meta", requires_grad=True)
    masks = torch.empty(count, layers, queries, SIZE // 4, SIZE // 4, device="meta", requires_grad=True)
    with Watch() as watch:
        targets = targets_of(batch, torch.empty(LABELS, dtype=torch.bool, device="meta"))
        outputs = [Outputs(own, each, 4) for own, each in zip(logits, masks, strict=True)]
        closed = [torch.empty(LABELS, dtype=torch.bool, device="meta"), *[None] * (count - 1)]
        sums = sums_of_images(outputs, targets, [each.labels for each in targets], LmsegSettings(queries=4), closed)
        torch.autograd.grad(torch.stack(sums).sum(), (logits, masks))
    assert watch.found == []
    assert len(looks) == 2  # what is in the views, and what every pair costs
    assert [len(each) for each in targets] == [
        LABELS + 2 if kind == 0 else LABELS if kind == 1 else 2 for kind in datasets
    ]


def test_a_batch_goes_to_the_device_is_finished_there_and_taken_apart_without_waiting() -> None:
    batch = replace(
        batch_of([0, 1, 2]),
        images=torch.zeros(3, 3, SIZE, SIZE, dtype=torch.uint8),
        masks=torch.zeros(3, SIZE, SIZE, dtype=torch.int16),
        box_classes=[torch.zeros(0, dtype=torch.int64)] * 2 + [torch.zeros(2, dtype=torch.int64)],
        box_embeddings=[None, None, torch.zeros(2, DIM)],
        dataset_ids=torch.arange(3),
        unfinished=[Photometric(brightness=1.2), Photometric(sigma=1.0), Photometric()],
    )
    with Watch() as watch:
        here = batch.to(torch.device("meta"))
        pieces = [here.part(0, 1), here.part(1, 3)]
    assert watch.found == []
    assert all(piece.images.is_meta and piece.masks.dtype == torch.int64 for piece in pieces)
    assert [classes.is_meta for classes in pieces[1].box_classes] == [True, True]
    assert pieces[1].box_embeddings[0] is None and here.box_embeddings[2] is not None and here.box_embeddings[2].is_meta


def test_what_waits_is_found() -> None:
    values, order = torch.empty(3, 2, device="meta"), torch.tensor([1, 0])
    with Watch() as watch:
        values[order]
        order.to("meta")
    assert watch.found == ["aten.index.Tensor", "aten._to_copy.default"]
    with pytest.raises((RuntimeError, NotImplementedError)):
        values.cpu()
    with pytest.raises((RuntimeError, NotImplementedError)):
        values[0, 0].item()
