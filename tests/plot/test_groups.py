"""Groups on figures: names that say what labels share, blocks that stand together, names that don't touch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.merge.clustering import seriation
from labelmerge.names import prompt_name
from labelmerge.plot.groups import group_names
from labelmerge.plot.map import map_groups
from labelmerge.plot.similarity import named_blocks, spread

KINDS = {
    "land mammal": ("cat", "dog", "horse", "sheep", "cow", "elephant"),
    "furniture": ("chair", "couch", "bed", "dining table"),
    "fruit": ("banana", "apple", "orange"),
}


def _bank() -> Bank:
    """COCO's mammals, furniture and fruit, whose vectors lie together by kind."""
    rng = np.random.default_rng(0)
    rows = {row.name: row for row in load_descriptions(load_recipe("coco_panoptic"))}
    names = [name for kind in KINDS.values() for name in kind]
    middles = {kind: rng.normal(size=16) for kind in KINDS}
    kind_of = {name: kind for kind, own in KINDS.items() for name in own}
    names.sort(key=lambda name: rows[name].index)
    vectors = np.stack([middles[kind_of[name]] + 0.3 * rng.normal(size=16) for name in names])
    return Bank(
        encoder="toy",
        identity={"spec": "toy"},
        prompt="{name}",
        keys=[("coco_panoptic", rows[name].index) for name in names],
        names=names,
        texts=[prompt_name(name) for name in names],
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        tokens=[1] * len(names),
        truncated=[False] * len(names),
        probe=np.zeros(0, np.float32),
        folder=Path("bank"),
    )


def test_a_group_is_called_by_what_its_labels_share() -> None:
    bank = _bank()
    places = {name: np.array([bank.names.index(member) for member in own]) for name, own in KINDS.items()}
    assert group_names(bank, list(places.values())) == list(KINDS)
    mixed = np.array([bank.names.index("cat"), bank.names.index("banana")])
    (name,) = group_names(bank, [mixed])
    assert set(name.split(", ")) <= {"cat", "banana"}


def test_what_nearly_all_labels_are_names_no_group() -> None:
    bank = _bank()
    (name,) = group_names(bank, [np.arange(len(bank))])
    assert name not in ("anything", "thing", "object") and set(name.split(", ")) <= set(bank.names)


def test_two_groups_never_have_one_name() -> None:
    bank = _bank()
    names = group_names(bank, [np.arange(4), np.array([4, 5])])
    assert len(set(names)) == 2 and "land mammal" in names


def test_blocks_are_runs_of_the_order_and_hold_one_cluster() -> None:
    bank = _bank()
    order = seriation(bank)
    blocks = named_blocks(bank, order, 3)
    found = {name: {bank.names[row] for row in order[start:end]} for start, end, name in blocks}
    assert found == {kind: set(own) for kind, own in KINDS.items()}
    assert len(named_blocks(bank, order, 1)) <= 1


def test_names_are_spread_and_stay_near() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = np.sort(rng.uniform(0, 99, rng.integers(1, 20)))
        places = spread(wanted, 4.0, 100.0)
        assert (np.diff(places) >= 4 - 1e-9).all()
        assert places.min() >= 0 and places.max() <= 99 + 1e-9
        if (np.diff(wanted) >= 4).all() and wanted.max() <= 99:
            assert np.allclose(places, wanted, atol=99 - 4 * (len(wanted) - 1))
    assert np.allclose(spread(np.array([10.0, 50.0]), 4.0, 100.0), [10, 50])
    assert np.allclose(spread(np.array([50.0, 51.0]), 4.0, 100.0), [48.5, 52.5])


def test_groups_of_the_map_are_clusters() -> None:
    rng = np.random.default_rng(0)
    places = np.concatenate(
        [middle + 0.01 * rng.normal(size=(12, 2)) for middle in ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9))]
    )
    groups = sorted(map_groups(places), key=lambda group: int(group[0]))
    assert [group.tolist() for group in groups] == [list(range(n, n + 12)) for n in (0, 12, 24)]
    assert map_groups(places[:5]) == []
