"""Which columns a label is asked for by, against sets of concepts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelKey, LabelSpace
from labelmerge.merge.baselines import shared_bank
from labelmerge.merge.columns import Columns, build_columns
from labelmerge.merge.merges import by_concepts
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.methods.meaning import RunColumns, reachable, share_columns
from labelmerge.methods.predictor import LabelList

CONCEPTS, COLUMNS = 6, 4


def slowly(labels: list[set[int]], column_of: list[int], taught: list[bool]) -> tuple[list[set[int]], list[bool]]:
    """As docs/prediction.md says it."""
    content = [{c for c in range(CONCEPTS) if column_of[c] == n} for n in range(COLUMNS)]
    given: list[set[int]] = [set() for _ in labels]
    own = [not any(column_of[c] >= 0 for c in concepts) for concepts in labels]
    for n, inside in enumerate(content):
        whole = [m for m, concepts in enumerate(labels) if inside and inside <= concepts]
        if whole:
            takers = [m for m in whole if not any(labels[other] < labels[m] for other in whole)]
        else:
            takers = [m for m, concepts in enumerate(labels) if inside & concepts]
        if len(takers) == 1 and taught[n]:
            given[takers[0]].add(n)
        else:
            for m in takers:
                own[m] = True
    return given, own


@given(
    st.lists(st.sets(st.integers(0, CONCEPTS - 1)), min_size=1, max_size=6),
    st.lists(st.integers(-1, COLUMNS - 1), min_size=CONCEPTS, max_size=CONCEPTS),
    st.lists(st.booleans(), min_size=COLUMNS, max_size=COLUMNS),
)
def test_columns_are_shared_as_told(labels: list[set[int]], column_of: list[int], taught: list[bool]) -> None:
    sets = np.array([[c in concepts for c in range(CONCEPTS)] for concepts in labels], dtype=np.bool_)
    columns, own = share_columns(sets, np.array(column_of), np.array(taught))
    expected = slowly(labels, column_of, taught)
    assert [set(np.flatnonzero(row).tolist()) for row in columns] == expected[0]
    assert own.tolist() == expected[1]


def bank_of(*datasets: str) -> tuple[Bank, list[LabelSpace]]:
    """All labels of shipped datasets, with a random vector for each name."""
    from labelmerge.catalog import load_descriptions, load_recipe

    rows: list[tuple[LabelKey, str]] = []
    spaces = []
    for dataset in sorted(datasets):
        described = load_descriptions(load_recipe(dataset))
        rows += [((dataset, row.index), row.name) for row in described]
        spaces.append(LabelSpace(dataset, tuple(row.index for row in described), tuple(row.name for row in described)))
    texts = [f"{name}: {key[0]}" for key, name in rows]
    vectors = np.stack([np.random.default_rng(list(text.encode())).normal(size=8) for text in texts])
    bank = Bank(
        encoder="offline",
        identity={"spec": "offline", "model": "m", "weights_sha256": "0", "activation": "a", "tokenizer": "t"},
        prompt="{name}",
        keys=[key for key, _ in rows],
        names=[name for _, name in rows],
        texts=texts,
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        tokens=[1] * len(rows),
        truncated=[False] * len(rows),
    )
    return bank, spaces


def run_of(bank: Bank, spaces: list[LabelSpace], taxonomy: Taxonomy) -> tuple[RunColumns, Columns, Bank]:
    trained = shared_bank(bank, [space.name for space in spaces], taxonomy)
    columns = build_columns(trained, spaces, None, taxonomy)
    return RunColumns(columns.texts, columns.labels, columns.positive, trained, taxonomy, True), columns, trained


def test_training_labels_have_the_columns_that_they_were_trained_with() -> None:
    bank, spaces = bank_of("cityscapes", "coco_panoptic", "mapillary")
    run, columns, trained = run_of(bank, spaces, by_concepts(bank))
    np.testing.assert_array_equal(run.vectors, columns.vectors)
    checked = 0
    for space in spaces:
        asked = run.ask(LabelList.of(space, trained), [(key,) for key in space.keys], trained)
        rows = columns.positive[[columns.labels.index(key) for key in space.keys]]
        alone = rows & (rows.sum(axis=0) == 1)
        for place, names in enumerate(asked.columns):
            if (rows[place] == alone[place]).all():  # no other label of the set may be the same
                mine = [n for n in np.flatnonzero(rows[place]) if columns.keys[n]]
                assert names == tuple(columns.texts[n] for n in mine)
                # What is left of wider labels is asked for by the label's own text.
                assert asked.counts[place] == len(mine) + (len(mine) < rows[place].sum())
                checked += 1
    assert checked > 150


def by_name(asked: LabelList) -> dict[str, tuple[str, ...]]:
    return dict(zip(asked.names, asked.columns, strict=True))


def ask(run: RunColumns, space: LabelSpace, bank: Bank) -> LabelList:
    return run.ask(LabelList.of(space, bank), [(key,) for key in space.keys], bank)


def subsets(n: int) -> Iterable[tuple[int, ...]]:
    return chain.from_iterable(combinations(range(n), size) for size in range(1, n + 1))


def test_what_a_mixture_of_columns_reaches() -> None:
    rng = np.random.default_rng(0)
    for columns in (1, 2, 5, 7):
        mixed = rng.normal(size=(columns, 4)).astype(np.float32)
        asked = rng.normal(size=(20, 4)).astype(np.float32)
        for vector, found in zip(asked.astype(np.float64), reachable(mixed, asked), strict=True):
            # The best mixture is the projection on some of the columns that happens to weigh none of them below 0.
            best = 0.0
            for chosen in subsets(columns):
                basis = mixed[list(chosen)].astype(np.float64)
                weights = np.linalg.lstsq(basis.T, vector, rcond=None)[0]
                if (weights >= 0).all() and (made := weights @ basis).any():
                    best = max(best, made @ vector / np.linalg.norm(made) / np.linalg.norm(vector))
            assert abs(found - (best or 1)) < 1e-6
    own = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(reachable(own, own), 1, atol=1e-6)
    np.testing.assert_array_equal(reachable(own[:1], -own[:1]), 1)


def test_labels_that_no_column_stands_for_are_helped_by_what_the_run_does_not_reach() -> None:
    bank, spaces = bank_of("cityscapes", "voc")
    cityscapes, voc = spaces
    run, _, trained = run_of(bank, [cityscapes], by_concepts(bank))
    listed = ask(run, voc, trained)
    assert listed.divisors is not None
    for name, own, key in zip(listed.columns, listed.divisors, voc.keys, strict=True):
        np.testing.assert_array_equal(own[: len(name)], 1)
        np.testing.assert_allclose(
            own[len(name) :], np.sqrt(reachable(run.vectors, trained.rows([key])))[: len(own) - len(name)]
        )
    assert (listed.divisors[voc.names.index("cow")] < 1).all()
    # So are words that are no dataset's label.
    words = LabelList(("cow",), ("cow",), (None,), trained.rows([voc.keys[voc.names.index("cow")]]))
    alone = run.ask(words, [()], trained)
    assert alone.divisors is not None
    np.testing.assert_array_equal(alone.divisors[0], listed.divisors[voc.names.index("cow")])


def test_labels_of_other_sets_have_the_columns_below_them() -> None:
    bank, spaces = bank_of("cityscapes", "voc", "camvid")
    camvid, cityscapes, voc = spaces
    run, _, trained = run_of(bank, [cityscapes], by_concepts(bank))
    asked = by_name(ask(run, voc, trained))
    assert set(asked["person"]) == {"person", "rider"} and asked["car"] == ("car",)
    assert asked["cow"] == ()  # by its own vector
    assert ask(run, voc, trained).counts[voc.names.index("cow")] == 1
    # Seen from the other side, what was trained is wider than what is asked for, and doesn't tell the two apart.
    run, _, trained = run_of(bank, [voc], by_concepts(bank))
    listed = ask(run, cityscapes, trained)
    asked = by_name(listed)
    assert asked["person"] == asked["rider"] == () and asked["car"] == ("car",)
    place = cityscapes.names.index("rider")
    assert listed.several is not None
    np.testing.assert_array_equal(listed.several[place], trained.rows([cityscapes.keys[place]]))


def test_a_set_that_came_later_is_placed_by_its_concepts() -> None:
    bank, spaces = bank_of("cityscapes", "coco_panoptic", "voc")
    cityscapes, coco, voc = spaces
    whole, _, trained = run_of(bank, [cityscapes, coco], by_concepts(bank))
    without = bank.for_datasets(["cityscapes", "coco_panoptic"])
    run, _, _ = run_of(without, [cityscapes, coco], by_concepts(without))
    expected = by_name(ask(whole, voc, trained))
    assert {name: set(own) for name, own in by_name(ask(run, voc, bank)).items()} == {
        name: set(own) for name, own in expected.items()
    }
    # The training sets need not be in the bank that is given.
    assert by_name(ask(run, voc, bank.for_datasets(["voc"]))).keys() == expected.keys()
    # A table says nothing of what it lacks.
    listed = ask(replace(run, curated=False), voc, bank)
    assert all(own == () for own in listed.columns) and set(listed.counts) == {1}
