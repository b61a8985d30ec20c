"""Depths in batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labelmerge.labels import IGNORE
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.shardset.shardset import ShardSet

from .test_mixture import PARTS, STREETS, batch_of, batches_of, mixture, same
from .toy_shards import Toy

DEEP = Toy("streets", STREETS.names, count=5, depth=True)


@pytest.mark.parametrize("cache_mb", [0, 256])
def test_depths_are_cut_out_with_the_mask_and_keep_their_values(tmp_path: Path, cache_mb: int) -> None:
    mixed = mixture(tmp_path, [DEEP, PARTS], batch_size=8, depth=True, cache_mb=cache_mb)
    known = 0
    for batch in batches_of(mixed, 0, 4):
        assert batch.depths is not None and batch.depths.dtype == torch.int32
        for mask, depths, dataset in zip(batch.masks, batch.depths, batch.datasets, strict=True):
            if dataset == "parts":
                assert not depths.any()
                continue
            seen = depths > 0
            assert not seen[mask == IGNORE].any()  # outside the image
            assert ((depths - 1000 - 700 * mask)[seen] % 10 == 0).all() and depths.max() <= 1000 + 1400 + 400
            rows = (depths - 1000 - 700 * mask).where(seen, torch.tensor(-1))
            assert all(len(set(row[row >= 0].tolist())) <= 1 for row in rows)
            known += int(seen.sum())
    assert known > 1000
    (there,) = batches_of(mixed, 0, 1, workers=1)
    here = batch_of(mixed)
    assert here.depths is not None and there.depths is not None and torch.equal(here.depths, there.depths)
    part = here.part(2, 5).to(torch.device("cpu"))
    assert part.depths is not None and torch.equal(part.depths, here.depths[2:5])


def test_depths_cost_nothing_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = batch_of(mixture(tmp_path / "a", [STREETS]))
    monkeypatch.setattr("labelmerge.shardset.sample.decode_depth", None)
    batch = batch_of(mixture(tmp_path / "b", [DEEP]))
    assert same(batch, plain) and batch.depths is None
    monkeypatch.undo()
    deep = batch_of(mixture(tmp_path / "b", [DEEP], depth=True))
    assert same(batch, deep), "the same views with depths as without"


def test_hidden_datasets_show_no_depths(tmp_path: Path) -> None:
    (source,) = group_by_dataset([ShardSet.open(DEEP.write(tmp_path))])
    hidden = source.without_labels()
    assert source.has_depth and source.depth_pixels == 5 * 39 * 48 and not hidden.has_depth
    assert hidden.fetch(0, depth=True).depth_region(None) is None
