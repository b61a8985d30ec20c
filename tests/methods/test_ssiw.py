"""SSIW's units and sums, one pixel and one box at a time; labels that may stand for several columns."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from labelmerge.labels import IGNORE
from labelmerge.loading.augment import Augmentation
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.loading.mixture import Mixture
from labelmerge.losses import LabelTable, pixel_cosine_loss
from labelmerge.methods.ssiw.losses import TERMS, Labels, ssiw_sums, ssiw_units
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import label_teacher
from labelmerge.shardset.shardset import ShardSet

from ..train.conftest import TOYS

DATASETS, COLUMNS, DIM = 3, 4, 5
TAU = torch.tensor(0.2)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    sources = group_by_dataset([ShardSet.open(toy.write(tmp_path)) for toy in TOYS])
    (made,) = Mixture(sources, 7, 0, Augmentation(crop=24)).batch(1)
    return made.to(torch.device("cpu"))


def labels(table: LabelTable | None = None) -> Labels:
    vectors = torch.nn.functional.normalize(
        torch.randn(COLUMNS, DIM, generator=torch.Generator().manual_seed(1)), dim=1
    )
    own = torch.zeros(DATASETS, COLUMNS, dtype=torch.bool)
    own[:, :3] = True
    return Labels(vectors, own, vectors, table)


def embeddings(batch: Batch) -> Tensor:
    return torch.randn(len(batch), DIM, 6, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("losses", [("hd", "ld", "wd"), ("wd", "hd"), ("ld",)])
def test_units_are_the_pixels_and_boxes_of_each_dataset(batch: Batch, losses: tuple[str, ...]) -> None:
    settings = SsiwSettings(losses=losses, drop=0.25)
    counted: Counter[tuple[str, int]] = Counter()
    for i, kind in enumerate(batch.annotation_types):
        labelled = int((batch.masks[i] != IGNORE).sum())
        number = {"mask": labelled, "noisy_mask": labelled - int(0.25 * labelled), "box": len(batch.boxes[i])}[kind]
        for name in losses:
            if TERMS[name] == kind:
                counted[name, int(batch.dataset_ids[i])] += number
    units = ssiw_units(batch, DATASETS, settings)
    assert units.dtype == torch.int64
    assert units.tolist() == [[counted[name, dataset] for dataset in range(DATASETS)] for name in losses]
    parts = [ssiw_units(piece, DATASETS, settings) for piece in batch.pieces(3)]
    assert torch.equal(units, torch.stack(parts).sum(0))


def test_sums_of_pieces_add_up_and_stand_where_their_units_do(batch: Batch) -> None:
    settings, v = SsiwSettings(losses=("hd", "ld", "wd"), hd_weight=2.0), embeddings(batch)
    whole = ssiw_sums(batch, v, labels(), TAU, label_teacher, settings)
    assert torch.equal(whole > 0, ssiw_units(batch, DATASETS, settings) > 0)
    single = torch.zeros_like(whole)
    for i in range(len(batch)):
        single += ssiw_sums(batch.part(i, i + 1), v[i : i + 1], labels(), TAU, label_teacher, settings)
    assert torch.allclose(whole, single, rtol=1e-5)
    masked = [i for i, kind in enumerate(batch.annotation_types) if kind == "mask"]
    literal = sum(
        pixel_cosine_loss(v[i : i + 1], labels().vectors, batch.masks[i : i + 1], TAU, IGNORE, reduction="none").sum()
        for i in masked
    )
    assert float(whole[0].sum()) == pytest.approx(2 * float(literal), rel=1e-5)


def test_labels_that_may_be_several_columns_have_a_smaller_loss(batch: Batch) -> None:
    settings, v = SsiwSettings(losses=("hd", "ld")), embeddings(batch)
    one = ssiw_sums(batch, v, labels(), TAU, label_teacher, settings)
    alone = LabelTable(torch.eye(COLUMNS, dtype=torch.bool), torch.ones(COLUMNS, COLUMNS))
    assert torch.allclose(ssiw_sums(batch, v, labels(alone), TAU, label_teacher, settings), one, rtol=1e-5)
    positive = torch.eye(COLUMNS, dtype=torch.bool)
    positive[:, 0] = True
    more = ssiw_sums(batch, v, labels(LabelTable(positive, torch.ones(COLUMNS, COLUMNS))), TAU, label_teacher, settings)
    assert (more[one > 0] < one[one > 0]).all()
    own = ssiw_sums(batch, v, labels(), TAU, label_teacher, dataclasses.replace(settings, negatives="own"))
    assert (own[one > 0] < one[one > 0]).all()  # fewer labels to choose from
