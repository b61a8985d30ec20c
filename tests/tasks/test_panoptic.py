"""Panoptic quality against a slow reference, against hotcoco on COCO's files, and on cases that are known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.ambiguity import Verdicts
from labelmerge.tasks.panoptic import Panoptic, PanopticCounts, PanopticQuality, TruthSegments, panoptic_counts

Array = npt.NDArray[Any]
SPACE = LabelSpace.of("toy", ("car", "person", "road", "sky"))
THINGS = (0, 1)


@dataclass
class Truth:
    mask: Array
    instances: Array | None
    segments: list[dict[str, Any]] = field(default_factory=list)
    key: str = "toy-val-000000000"
    pixel_area: float = 1.0
    annotated: frozenset[int] | None = None


@dataclass
class Found:
    ids: Array
    labels: Array


def drawn(seed: int, *, crowds: bool = True) -> tuple[TruthSegments, Found]:
    """Random blocks: some void, segments that are nearly right, wrong in class, or split."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(6, 14, 2)
    n = int(rng.integers(1, 8))
    ids = np.zeros((height, width), dtype=np.int64)
    for number in range(1, n + 1):
        y, x = rng.integers(0, height), rng.integers(0, width)
        ids[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = number
    classes = rng.integers(0, 4, n)
    crowd = np.zeros(n, dtype=np.bool_)
    for position in range(4 if crowds else 0):  # one crowd for each class at most, as in COCO
        if rng.random() < 0.3 and (own := np.flatnonzero(classes == position)).size:
            crowd[rng.choice(own)] = True
    labels = list(np.where(rng.random(n) < 0.8, classes, rng.integers(0, 4, n)))
    predicted = np.where(rng.random(ids.shape) < 0.85, np.roll(ids, rng.integers(0, 2), axis=1), 0)
    for _ in range(2):
        labels.append(int(rng.integers(0, 4)))
        y, x = rng.integers(0, height), rng.integers(0, width)
        predicted[y : y + 3, x : x + 4] = len(labels)
    return TruthSegments(ids, classes, crowd), Found(predicted, np.array(labels))


def slow(truth: TruthSegments, found: Found) -> dict[int, list[float]]:
    """Sum of IoU, TP, FN, FP by class, segment by segment."""
    out: dict[int, list[float]] = {position: [0.0, 0, 0, 0] for position in range(4)}
    used = set()
    void = truth.ids == 0
    for number, (position, crowd) in enumerate(zip(truth.classes, truth.crowd, strict=True), start=1):
        own = truth.ids == number
        if crowd or not own.any():
            continue
        best = 0.0
        for other, label in enumerate(found.labels, start=1):
            region = found.ids == other
            iou = (own & region).sum() / ((own | region) & ~(region & void)).sum()
            if label == position and iou > 0.5:
                best = iou
                used.add(other)
        out[position][0] += best
        out[position][1 if best else 2] += 1
    for other, label in enumerate(found.labels, start=1):
        region = found.ids == other
        nobodys = void.copy()
        for number, (position, crowd) in enumerate(zip(truth.classes, truth.crowd, strict=True), start=1):
            if crowd and position == label:
                nobodys |= truth.ids == number
        if region.any() and other not in used and (region & nobodys).sum() <= region.sum() / 2:
            out[int(label)][3] += 1
    return out


@given(st.integers(0, 10_000))
def test_counts_are_those_of_the_slow_way(seed: int) -> None:
    truth, found = drawn(seed)
    counts = panoptic_counts(truth, found.ids, found.labels, 4)
    wanted = slow(truth, found)
    for position in range(4):
        iou, matched, missed, wrong = wanted[position]
        assert counts.iou[position] / 2**40 == pytest.approx(iou, abs=1e-11)
        assert (counts.matched[position], counts.missed[position], counts.wrong[position]) == (matched, missed, wrong)
    assert counts.ignored == (truth.ids == 0).sum()


@given(st.integers(0, 10_000))
def test_segments_of_what_was_not_annotated_are_no_mistakes(seed: int) -> None:
    truth, found = drawn(seed)
    closed = np.random.default_rng(seed).random(4) < 0.5
    counts = panoptic_counts(truth, found.ids, found.labels, 4, undecided=closed)
    plain = panoptic_counts(truth, found.ids, found.labels, 4)
    assert np.array_equal(counts.wrong, np.where(closed, 0, plain.wrong))
    for name in ("iou", "matched", "missed"):
        assert np.array_equal(getattr(counts, name), getattr(plain, name))


def test_an_images_own_list_goes_before_its_datasets() -> None:
    mask, instances = np.array([[0, 0, 2, 2]], dtype=np.uint8), np.array([[1, 1, 2, 2]], dtype=np.uint16)
    segments = [{"id": 1, "class_index": 0, "iscrowd": False}, {"id": 2, "class_index": 2, "iscrowd": False}]
    truth = Truth(mask, instances, segments)
    found = Found(np.array([[1, 1, 2, 2]]), np.array([0, 1]))
    for annotated, own, wrong in (
        (None, None, 1), (None, frozenset({0, 2}), 0), ([True, False, True, True], None, 0),
        ([True, False, True, True], frozenset({0, 1}), 1),
    ):  # fmt: skip
        task = Panoptic(SPACE, THINGS, annotated=None if annotated is None else np.array(annotated))
        counts = task.count(replace(truth, annotated=own), found)
        assert (counts.matched.tolist(), counts.wrong.tolist()) == ([1, 0, 0, 0], [0, wrong, 0, 0])
        assert counts.missed.tolist() == [0, 0, 1, 0]
    riders = Verdicts.of(
        np.eye(4, dtype=np.bool_), np.eye(4, dtype=np.bool_)[[0, 2, 1]], np.zeros((4, 3), dtype=np.bool_)
    )
    mixed = Panoptic(SPACE, THINGS, riders)
    for own, wrong in ((None, 1), (frozenset({0, 2}), 0)):
        counts = mixed.count(replace(truth, annotated=own), Found(found.ids, np.array([0, 2])))
        assert counts.wrong.sum() == wrong


def total(pairs: Sequence[tuple[TruthSegments, Found]]) -> PanopticCounts:
    task = Panoptic(SPACE, THINGS)
    return task.total([panoptic_counts(truth, found.ids, found.labels, 4) for truth, found in pairs])


def write_coco(path: Path, images: Sequence[tuple[Array, Array, Array]]) -> Path:
    """A panoptic JSON and its folder of PNGs, from ids, classes and crowds of each image."""
    path.with_suffix("").mkdir()
    annotations = []
    for number, (ids, classes, crowd) in enumerate(images):
        rgb = np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(path.with_suffix("") / f"{number}.png")
        infos = [
            {
                "id": n,
                "category_id": int(classes[n - 1]) + 1,
                "iscrowd": int(crowd[n - 1]),
                "area": int((ids == n).sum()),
            }
            for n in range(1, len(classes) + 1)
            if (ids == n).any()
        ]
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
    shown = [
        {"id": n, "file_name": f"{n}.jpg", "height": ids.shape[0], "width": ids.shape[1]}
        for n, (ids, *_) in enumerate(images)
    ]
    categories = [{"id": k + 1, "name": name, "isthing": int(k in THINGS)} for k, name in enumerate(SPACE.names)]
    path.write_text(json.dumps({"images": shown, "annotations": annotations, "categories": categories}))
    return path


def test_it_is_what_hotcoco_says_of_the_same_files(tmp_path: Path) -> None:
    panoptic = pytest.importorskip("hotcoco.panoptic")
    pairs = [drawn(seed) for seed in range(40)]
    assert sum(int(truth.crowd.sum()) for truth, _ in pairs) > 10
    wanted = panoptic.pq_compute(
        str(write_coco(tmp_path / "truth.json", [(t.ids, t.classes, t.crowd) for t, _ in pairs])),
        str(write_coco(tmp_path / "found.json", [(f.ids, f.labels, np.zeros(len(f.labels))) for _, f in pairs])),
    )
    groups = Panoptic(SPACE, THINGS).figures(total(pairs)).groups
    for name, theirs in (("all", "All"), ("things", "Things"), ("stuff", "Stuff")):
        for figure in ("pq", "sq", "rq"):
            assert getattr(groups[name], figure) == pytest.approx(wanted[theirs][figure], abs=1e-6)


def test_parts_in_any_order_are_the_whole() -> None:
    pairs = [drawn(seed) for seed in range(30)]
    task = Panoptic(SPACE, THINGS)
    whole = total(pairs)
    parts = task.total([total(pairs[20:]), task.nothing(), total(pairs[7:20]), total(pairs[:7])])
    for name in ("iou", "matched", "missed", "wrong", "ignored"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def figures(truth: Truth, found: Found, things: tuple[int, ...] | None = THINGS) -> PanopticQuality:
    task = Panoptic(SPACE, things)
    return task.figures(task.count(truth, found))


def test_by_hand() -> None:
    mask = np.array([[0, 0, 0, 0, 2, 2, 2, 255]], dtype=np.uint8)
    instances = np.array([[5, 5, 9, 9, 0, 0, 0, 0]], dtype=np.uint16)
    truth = Truth(mask, instances, [{"id": i, "class_index": 0, "iscrowd": False} for i in (5, 9)])
    right = figures(truth, Found(np.array([[1, 1, 2, 2, 3, 3, 3, 3]]), np.array([0, 0, 2])))
    assert right.groups["all"].pq == 1 and right.groups["stuff"].classes == 1
    together = figures(truth, Found(np.array([[1, 1, 1, 1, 2, 2, 2, 0]]), np.array([0, 2])))
    assert together.groups["things"].pq == 0 and together.counts.missed[0] == 2 and together.counts.wrong[0] == 1
    # Two thirds of the road, and one of two cars: SQ 2/3, RQ 1; SQ 1, RQ 1 / (1 + 1/2)
    some = figures(truth, Found(np.array([[1, 1, 0, 0, 2, 2, 0, 0]]), np.array([0, 2])))
    assert some.pq[2] == pytest.approx(2 / 3, abs=1e-9) and some.rq[2] == 1
    assert some.sq[0] == 1 and some.rq[0] == pytest.approx(2 / 3) and np.isnan(some.pq[3])


def test_stuff_in_pieces_is_one_and_things_outside_segments_are_a_crowd() -> None:
    mask = np.array([[2, 2, 3, 2, 2, 0, 0, 0]], dtype=np.uint8)
    instances = np.array([[1, 1, 0, 2, 2, 0, 0, 3]], dtype=np.uint16)
    segments = [{"id": i, "class_index": c, "iscrowd": False} for i, c in ((1, 2), (2, 2), (3, 0))]
    found = Found(np.array([[1, 1, 2, 1, 1, 3, 3, 4]]), np.array([2, 3, 0, 0]))
    told = figures(Truth(mask, instances, segments), found)
    assert told.groups["all"].pq == 1 and told.counts.matched.tolist() == [1, 0, 1, 1]
    unknown = figures(Truth(mask, instances, segments), found, things=None)
    assert set(unknown.groups) == {"all"} and unknown.counts.missed[2] == 2


@pytest.mark.parametrize(
    ("truth", "what"),
    [
        (Truth(np.zeros((1, 1), np.uint8), None), "no segments"),
        (Truth(np.full((1, 1), 7, np.uint8), np.zeros((1, 1), np.uint16)), "not classes"),
        (
            Truth(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint16), [{"id": 1, "class_index": 9, "iscrowd": 0}]),
            "of no class",
        ),
    ],
)
def test_annotations_that_make_no_sense_are_bad_samples(truth: Truth, what: str) -> None:
    with pytest.raises(SampleError, match=what):
        figures(truth, Found(np.zeros((1, 1), np.int64), np.zeros(0, np.int64)))


def slow_by_verdicts(truth: TruthSegments, found: Found, verdicts: Verdicts) -> dict[int, list[float]]:
    """As `slow`, with a list of labels of which several may be right for one class."""
    out: dict[int, list[float]] = {position: [0.0, 0, 0, 0] for position in range(4)}
    used = set()
    void = truth.ids == 0
    for number, (position, crowd) in enumerate(zip(truth.classes, truth.crowd, strict=True), start=1):
        own, best = truth.ids == number, 0.0
        if crowd or not own.any():
            continue
        for other, label in enumerate(found.labels, start=1):
            region = found.ids == other
            iou = (own & region).sum() / ((own | region) & ~(region & void)).sum()
            if verdicts.right[position, label] and iou > 0.5:
                best = iou
                used.add(other)
        out[position][0] += best
        out[position][1 if best else 2] += 1
    for other, label in enumerate(found.labels, start=1):
        region = found.ids == other
        nobodys = void.copy()
        for number, (position, crowd) in enumerate(zip(truth.classes, truth.crowd, strict=True), start=1):
            if verdicts.open[position, label] or (crowd and verdicts.right[position, label]):
                nobodys |= truth.ids == number
        if region.any() and other not in used and (region & nobodys).sum() <= region.sum() / 2:
            for position in np.flatnonzero(verdicts.stands_for[:, label]).tolist():
                out[position][3] += 1
    return out


@given(st.integers(0, 10_000))
def test_one_list_for_several_sets_counts_as_the_slow_way(seed: int) -> None:
    truth, found = drawn(seed)
    rng = np.random.default_rng([seed, 1])
    own, listed = (rng.random((size, 5)) < 0.4 for size in (4, 6))
    verdicts = Verdicts.of(own, listed, np.zeros((4, 6), dtype=np.bool_))
    labels = np.where(rng.random(len(found.labels)) < 0.5, found.labels, rng.integers(0, 6, len(found.labels)))
    counts = panoptic_counts(truth, found.ids, labels, 4, verdicts)
    wanted = slow_by_verdicts(truth, Found(found.ids, labels), verdicts)
    for position in range(4):
        iou, matched, missed, wrong = wanted[position]
        assert counts.iou[position] / 2**40 == pytest.approx(iou, abs=1e-11)
        assert (counts.matched[position], counts.missed[position], counts.wrong[position]) == (matched, missed, wrong)
    same = np.eye(4, dtype=np.bool_)
    plain, by_verdicts = (
        panoptic_counts(truth, found.ids, found.labels, 4, each) for each in (None, Verdicts.of(same, same, same))
    )
    for name in ("iou", "matched", "missed", "wrong"):
        assert np.array_equal(getattr(plain, name), getattr(by_verdicts, name)), name


def test_riders_are_persons_and_pieces_of_stuff_are_one() -> None:
    """The set knows car, person, road, sky; the list has rider (a person) and thing (which holds person) as well."""
    concepts = np.eye(5, dtype=np.bool_)  # car, other persons, road, sky, riders
    own = concepts[:4].copy()
    own[1, 4] = True
    thing = own[0] | own[1]
    verdicts = Verdicts.of(own, np.stack([*own, concepts[4], thing]), np.eye(4, 6, dtype=np.bool_))
    mask = np.array([[0, 0, 1, 1, 2, 2, 2, 2]], dtype=np.uint8)
    instances = np.array([[1, 1, 2, 2, 3, 3, 3, 3]], dtype=np.uint16)
    truth = Truth(mask, instances, [{"id": i + 1, "class_index": i, "iscrowd": False} for i in range(3)])
    ids = np.array([[1, 1, 2, 2, 3, 3, 4, 4]])  # the road in two pieces

    def told(*labels: int) -> PanopticQuality:
        task = Panoptic(SPACE, THINGS, verdicts)
        return task.figures(task.count(truth, Found(ids, np.array(labels))))

    assert told(0, 1, 2, 2).groups["all"].pq == 1 and told(0, 4, 2, 2).groups["all"].pq == 1
    open_ = told(0, 5, 2, 2).counts
    assert open_.missed.tolist() == [0, 1, 0, 0] and open_.wrong.sum() == 0
    wrong = told(4, 1, 2, 2).counts  # a rider where a car is counts against persons
    assert wrong.missed.tolist() == [1, 0, 0, 0] and wrong.wrong.tolist() == [0, 1, 0, 0]


def of_coco(annotations: Path) -> tuple[LabelSpace, tuple[int, ...], list[Truth]]:
    """COCO panoptic files as annotations: the label space, its things, and every image."""
    content = json.loads(annotations.read_text())
    categories = content["categories"]
    place = {category["id"]: number for number, category in enumerate(categories)}
    space = LabelSpace.of("coco", tuple(category["name"] for category in categories))
    truths = []
    for entry in content["annotations"]:
        rgb = np.asarray(Image.open(annotations.with_suffix("") / entry["file_name"]).convert("RGB")).astype(np.int64)
        colours, ids = np.unique(rgb @ [1, 256, 65536], return_inverse=True)
        ids = ids.reshape(rgb.shape[:2]) + (colours[0] != 0)  # 0 stays no segment's
        number = {int(colour): n + int(colours[0] != 0) for n, colour in enumerate(colours)}
        segments = [
            {"id": number[info["id"]], "class_index": place[info["category_id"]], "iscrowd": bool(info["iscrowd"])}
            for info in entry["segments_info"]
        ]
        class_of = np.full(len(colours) + 1, 255)
        for segment in segments:
            class_of[segment["id"]] = segment["class_index"]
        truths.append(Truth(class_of[ids].astype(np.uint8), ids.astype(np.uint16), segments))
    return space, tuple(n for n, category in enumerate(categories) if category["isthing"]), truths


def changed(truth: Truth, way: str) -> Found:
    """A prediction made of the truth: the same, moved by 8 pixels both ways, or without every third segment."""
    assert truth.instances is not None
    kept = sorted(truth.segments, key=lambda segment: segment["id"])
    kept = [segment for n, segment in enumerate(kept) if way != "holes" or n % 3]
    number = np.zeros(1 << 16, dtype=np.int64)
    for place, segment in enumerate(kept, 1):
        number[segment["id"]] = place
    ids = number[truth.instances]
    return Found(
        np.roll(ids, (8, 8), (0, 1)) if way == "rolled" else ids, np.array([segment["class_index"] for segment in kept])
    )


@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        ("same", (1.0, 1.0, 1.0, 1.0, 1.0)),
        ("rolled", (0.3454, 0.4821, 0.5111, 0.1544, 0.5363)),
        ("holes", (0.8175, 1.0, 0.8175, 0.8849, 0.75)),
    ],
)
def test_panopticapis_sample(fixtures: Path, way: str, wanted: tuple[float, ...]) -> None:
    """PQ, SQ, RQ, and PQ of things and stuff, as cocodataset/panopticapi @7bb4655 counts them on its sample_data."""
    sample = fixtures / "panopticapi/sample_data/panoptic_examples.json"
    if not sample.is_file():
        pytest.skip("panopticapi's sample_data is not beside this checkout")
    space, things, truths = of_coco(sample)
    assert sum(len(truth.segments) for truth in truths) == 50
    task = Panoptic(space, things)
    groups = task.figures(task.total([task.count(truth, changed(truth, way)) for truth in truths])).groups
    found = (groups["all"].pq, groups["all"].sq, groups["all"].rq, groups["things"].pq, groups["stuff"].pq)
    assert found == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("way", ["rolled", "holes"])
def test_real_annotations_are_what_hotcoco_says(fixtures: Path, tmp_path: Path, way: str) -> None:
    """An image of COCO, moved or with holes."""
    panoptic = pytest.importorskip("hotcoco.panoptic")
    annotations = fixtures / "coco_panoptic/annotations/panoptic_val2017.json"
    space, things, (truth,) = of_coco(annotations)
    found, content = changed(truth, way), json.loads(annotations.read_text())
    ids = found.ids
    rgb = np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8)
    folder = tmp_path / "found"
    folder.mkdir()
    Image.fromarray(rgb).save(folder / content["annotations"][0]["file_name"])
    content["annotations"][0]["segments_info"] = [
        {"id": n, "category_id": content["categories"][label]["id"], "iscrowd": 0, "area": int((ids == n).sum())}
        for n, label in enumerate(found.labels.tolist(), 1)
    ]
    (tmp_path / "found.json").write_text(json.dumps(content))
    wanted = panoptic.pq_compute(str(annotations), str(tmp_path / "found.json"))
    task = Panoptic(space, things)
    groups = task.figures(task.count(truth, found)).groups
    for name, theirs in (("all", "All"), ("things", "Things"), ("stuff", "Stuff")):
        assert groups[name].pq == pytest.approx(wanted[theirs]["pq"], abs=1e-6)
