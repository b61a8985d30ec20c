"""Figures that know relations, against a loop over pixels and sets of concepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.ambiguity import AmbiguityAware, Mixed, Verdicts
from labelmerge.tasks.semantic import Metrics, Semantic, confusion_matrix

Sets = list[set[int]]


def matrix(sets: Sets) -> npt.NDArray[np.bool_]:
    return np.array([[concept in own for concept in range(5)] for own in sets], dtype=np.bool_).reshape(len(sets), 5)


def slowly(
    truth: Sets, asked: Sets, same: list[list[bool]], pixels: list[tuple[int, int]]
) -> tuple[list[float], dict[str, int]]:
    """As docs/evaluation.md says it, one pixel after the other."""

    def is_right(t: int, m: int) -> bool:
        return same[t][m] or (bool(asked[m]) and asked[m] <= truth[t])

    def stands_for(m: int) -> list[int]:
        holders = [t for t in range(len(truth)) if is_right(t, m)]
        return [t for t in holders if same[t][m] or not any(truth[u] and truth[u] < truth[t] for u in holders)]

    found, labelled, charged = ([0] * len(truth) for _ in range(3))
    kinds = {"right": 0, "open": 0, "wrong": 0}
    for t, m in pixels:
        labelled[t] += 1
        if is_right(t, m):
            kinds["right"] += 1
            found[t] += 1
        elif truth[t] & asked[m]:
            kinds["open"] += 1
        else:
            kinds["wrong"] += 1
            for u in stands_for(m):
                charged[u] += 1
    return [f / (n + c) if n + c else math.nan for f, n, c in zip(found, labelled, charged, strict=True)], kinds


sets = st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=5)


@given(sets, sets, st.data())
def test_equals_the_loop(truth: Sets, asked: Sets, data: st.DataObject) -> None:
    # What is one label has one set.
    twin = [data.draw(st.sampled_from([None, *range(len(truth))])) for _ in asked]
    asked = [truth[t] if t is not None else own for t, own in zip(twin, asked, strict=True)]
    same = [[twin[m] == t for m in range(len(asked))] for t in range(len(truth))]
    place = st.tuples(st.integers(0, len(truth) - 1), st.integers(0, len(asked) - 1))
    pixels = data.draw(st.lists(place, max_size=20))
    counts = np.zeros((len(truth), len(asked)), dtype=np.int64)
    for t, m in pixels:
        counts[t, m] += 1
    verdicts = Verdicts.of(matrix(truth), matrix(asked), np.array(same))
    figures = AmbiguityAware.of(counts, verdicts)
    ious, kinds = slowly(truth, asked, same, pixels)
    np.testing.assert_array_equal(figures.iou, ious)
    known = [value for value in ious if not math.isnan(value)]
    np.testing.assert_allclose(figures.miou, np.mean(known) if known else math.nan)
    if pixels:
        for name, count in kinds.items():
            assert getattr(figures, name) == count / len(pixels)


def test_unrelated_labels_have_the_plain_figures() -> None:
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 9, (5, 5))
    confusion[:, 3] = confusion[3] = 0
    verdicts = Verdicts.of(np.eye(5, dtype=np.bool_), np.eye(5, dtype=np.bool_), np.eye(5, dtype=np.bool_))
    assert verdicts.plain
    plain, figures = Metrics.of(confusion), AmbiguityAware.of(confusion, verdicts)
    np.testing.assert_array_equal(figures.iou, plain.iou)
    assert (figures.miou, figures.right, figures.open) == (plain.miou, plain.pixel_accuracy, 0)


def test_a_rider_is_a_person_but_not_the_other_way_round() -> None:
    # person (of a set without riders) = {0, 1}, car = {2}; asked for: walker = {0}, rider = {1}, being = {0, 1, 3}, car
    truth, asked = matrix([{0, 1}, {2}]), matrix([{0}, {1}, {0, 1, 3}, {2}])
    same = np.array([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=np.bool_)
    verdicts = Verdicts.of(truth, asked, same)
    np.testing.assert_array_equal(verdicts.right, [[1, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(verdicts.open, [[0, 0, 1, 0], [0, 0, 0, 0]])
    assert not verdicts.plain
    #                  walker rider being car
    counts = np.array([[40, 20, 30, 10], [0, 6, 4, 90]])
    figures = AmbiguityAware.of(counts, verdicts)
    # *being* on a person is missed but nobody's mistake, on a car it is a mistake that no label of the set stands for;
    # *rider* on a car counts against person, *car* on a person against car.
    np.testing.assert_allclose(figures.iou, [60 / (100 + 6), 90 / (100 + 10)])
    assert (figures.right, figures.open, figures.wrong) == (150 / 200, 30 / 200, 20 / 200)
    assert figures.to_json()["miou"] == pytest.approx((60 / 106 + 90 / 110) / 2)


def test_nothing_says_nothing() -> None:
    eye = np.eye(2, dtype=np.bool_)
    figures = AmbiguityAware.of(np.zeros((2, 2), dtype=np.int64), Verdicts.of(eye, eye, eye))
    assert figures.to_json() == {"miou": None, "right": None, "open": None, "wrong": None}


def test_a_list_of_its_own() -> None:
    truth, prediction = np.array([[0, 1, 255], [1, 1, 0]], np.uint8), np.array([[4, 2, 0], [2, 3, 4]])
    counts = confusion_matrix(truth, prediction, 2, 5)
    np.testing.assert_array_equal(counts, [[0, 0, 0, 0, 2], [0, 0, 2, 1, 0]])
    with pytest.raises(ValueError, match="predictions must be 0 to 4"):
        confusion_matrix(truth, prediction + 1, 2, 5)


@dataclass
class Labelled:
    mask: npt.NDArray[np.uint8]
    annotated: frozenset[int] | None = None
    key: str = "a-val-000000000"


def test_the_task_counts_images() -> None:
    space = LabelSpace("a", (0, 3), ("person", "car"))
    verdicts = Verdicts.of(matrix([{0, 1}, {2}]), matrix([{0}, {1}, {2}]), np.array([[0, 0, 0], [0, 0, 1]], np.bool_))
    task = Mixed(space, verdicts)
    assert not task.measured(task.nothing())
    counts = task.count(Labelled(np.array([[0, 3, 255]], np.uint8)), np.array([[1, 2, 0]]))
    assert task.measured(counts) and task.figures(task.total([counts, counts])).miou == 1
    # A car may stand where nobody annotated cars: the person there is still not found, but no car is a mistake.
    crowded = Labelled(np.array([[0, 0, 3, 3, 255]], np.uint8), annotated=frozenset({0}))
    predicted = np.array([[2, 1, 1, 2, 2]])
    seen, some = (task.figures(task.count(each, predicted)) for each in (crowded, Labelled(crowded.mask)))
    assert (seen.right, seen.open, seen.wrong) == (1 / 2, 1 / 4, 1 / 4) and (some.open, some.wrong) == (0, 1 / 2)
    np.testing.assert_array_equal(seen.iou, [1 / 3, 1 / 2])
    np.testing.assert_array_equal(some.iou, [1 / 3, 1 / 3])
    all_but_cars = Mixed(space, verdicts, np.array([True, False]))
    np.testing.assert_array_equal(all_but_cars.count(Labelled(crowded.mask), predicted), task.count(crowded, predicted))
    with pytest.raises(SampleError, match="not classes of a"):
        task.count(Labelled(np.array([[7]], np.uint8)), np.array([[0]]))


@pytest.mark.parametrize("seed", range(8))
def test_images_with_lists_of_their_own_against_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = LabelSpace("a", (0, 2, 5, 6), ("a", "b", "c", "d"))
    truth = [set(rng.choice(5, rng.integers(1, 4), replace=False).tolist()) for _ in range(4)]
    asked = [set(rng.choice(5, rng.integers(1, 4), replace=False).tolist()) for _ in range(5)] if seed % 2 else truth
    whole = rng.random(4) < 0.7 if seed % 3 else None
    same = np.eye(4, dtype=np.bool_) if asked is truth else np.zeros((4, 5), np.bool_)
    verdicts = Verdicts.of(matrix(truth), matrix(asked), same)
    own, mixed = Semantic(space, partly=True, annotated=whole), Mixed(space, verdicts, whole)
    right = unsure = wrong = 0
    found, either = np.zeros(4), np.zeros(4)
    counts: list[tuple[Any, Any]] = []
    for number in range(6):
        mask = rng.choice([0, 2, 5, 6, 255], (3, 9)).astype(np.uint8)
        listed = frozenset(rng.choice(space.indices, 2, replace=False).tolist()) if number % 2 else None
        predicted = rng.integers(0, len(asked), mask.shape)
        picture = Labelled(mask, listed)
        counts.append((own.count(picture, predicted) if asked is truth else None, mixed.count(picture, predicted)))
        known = {
            k for k, i in enumerate(space.indices) if (whole is None or whole[k] if listed is None else i in listed)
        }
        for value, p in zip(mask.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if value == 255:
                continue
            t = space.indices.index(value)
            stands = [k for k in range(4) if verdicts.stands_for[k, p]]
            either[t] += 1
            if verdicts.right[t, p]:
                right, found[t] = right + 1, found[t] + 1
            elif verdicts.open[t, p] or (stands and not known & set(stands)):
                unsure += 1
            else:
                wrong += 1
                either[stands] += 1
    total = right + unsure + wrong
    figures = [mixed.figures(mixed.total([count for _, count in counts]))]
    if asked is truth:
        of_all = own.total([count for count, _ in counts])
        figures.append(AmbiguityAware.of(of_all.confusion, verdicts, of_all.undecided))
    for each in figures:
        assert (each.right, each.open, each.wrong) == (right / total, unsure / total, wrong / total)
        np.testing.assert_allclose(each.iou[either > 0], (found / np.maximum(either, 1))[either > 0])
