"""LMSeg as a whole: what it learns, what its words do, and that its runs are exact."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from labelmerge.bank.bank import Bank
from labelmerge.compare.records import read_records
from labelmerge.compare.tables import segments_table
from labelmerge.errors import SampleError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch, Segments
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.merging import Merged
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import targets_of
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.build import build_model
from labelmerge.model.views import Views
from labelmerge.shardset.shardset import ShardSet
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import RunResult, train

from ..conftest import Run
from ..loading.toy_shards import Toy, toy_bank
from ..weights import weights
from .things import ToyThings

SMALL = {"queries": 8, "query_dim": 16, "attention_heads": 2, "decoder_layers": 2, "drop_path": 0.0}
PLAIN = {
    "method": "lmseg", "batch_size": 4, "crop": 64, "scale_min": 1.0, "scale_max": 1.0, "flip": 0.0, "colour": 0.0,
    "blur": 0.0, "jpeg": 0.0, "lr": 2e-3, "clip": 1.0, "steps": 4, "log_every": 2, "checkpoint_every": 2,
}  # fmt: skip
BOXES = Toy("things", ("cup", "car"), "box", count=5, colours=(4, 2))
STREETS = Toy("streets", ("road", "sky", "car"))


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    toys = [ToyThings(), BOXES, STREETS]
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    return tmp_path / "shards", tmp_path / "bank"


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.from_dict({**PLAIN, **SMALL, **changes})


def log(result: RunResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]


def test_four_images_are_learned_by_heart(data: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = data
    large = config(steps=220, queries=16, query_dim=64, decoder_layers=2, attention_heads=4, checkpoint_every=500)
    train([shards / "crowd"], bank, tmp_path / "run", config=large, device="cpu")
    results = evaluate(
        tmp_path / "run",
        [shards / "crowd"],
        bank,
        tmp_path / "r.json",
        views=Views(short_edge=0),
        tasks=["panoptic", "instances"],
    )
    (found,) = results.sets
    assert found.instances is not None and found.instances.ap > 0.6 and found.instances.ap50 > 0.9
    assert "AP %" in results.table() and "--task instances" in results.reproduce
    assert found.panoptic is not None and found.panoptic.groups["all"].pq > 0.9 and found.metrics.miou > 0.9
    told = json.loads((tmp_path / "r.json").read_text())["sets"][0]
    assert told["panoptic"]["things"]["classes"] == 2 and told["panoptic"]["all"]["pq"] > 0.9
    assert told["classes"][0]["panoptic"]["matched"] > 0 and "--task panoptic" in results.reproduce
    assert "PQ things %" in results.table() and results.protocol["tasks"] == ["panoptic", "instances"]
    (record,) = read_records([tmp_path / "run", tmp_path / "r.json"])
    table = segments_table([(record, record.results[0])])
    assert table is not None and table.columns[1:] == [
        f"crowd-train: {t}" for t in ("PQ", "PQ things", "PQ stuff", "AP")
    ]
    assert float(table.rows[0][1].text) > 90


def test_a_run_of_masks_and_boxes_goes_on_exactly(data: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = data
    whole = train([shards], bank, tmp_path / "whole", config=config(drop_path=0.2, batch_size=6), device="cpu")
    lines = log(whole)
    assert set(lines[-1]["parts"]) == {"class", "mask", "dice", "box"} and lines[-1]["parts"]["box"] > 0
    assert lines[-1]["segments_without_query"] == 0 and lines[-1]["temperature"] > 0
    half = tmp_path / "half"
    shutil.copytree(whole.run, half)
    shutil.rmtree(half / "checkpoints" / "step-000004")
    resumed = train([shards], bank, half, config=config(drop_path=0.2, batch_size=6), device="cpu")
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())


def test_pieces_are_the_whole(data: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = data
    sgd = {"optimizer": "sgd", "lr": 1e-3, "batch_size": 6}
    whole, pieces = (
        train([shards], bank, tmp_path / f"in{n}", config=config(**sgd, accumulate=n), device="cpu") for n in (1, 3)
    )
    for key, value in weights(whole).items():
        assert torch.allclose(value.float(), weights(pieces)[key].float(), atol=2e-5), key


def test_too_few_queries_are_said(data: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = data
    result = train([shards / "crowd"], bank, tmp_path / "run", config=config(steps=2, queries=3), device="cpu")
    assert log(result)[-1]["segments_without_query"] >= 4  # each image has at least a road, a sky and two things


def test_a_method_without_segments_says_so(data: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    shards, bank = data
    pixels = TrainConfig.from_dict({**PLAIN, "method": "ssiw", "steps": 1})
    result = train([shards / "crowd"], bank, tmp_path / "run", config=pixels, device="cpu")
    words = ["--checkpoint", result.run, "--shards", shards / "crowd", "--out", tmp_path / "r.json"]
    for task in ("panoptic", "instances"):
        refused = run("eval", *words, "--task", task)
        assert refused.exit_code == 2 and f"knows no {task.replace('panoptic', 'segments')}" in refused.stderr
    assert not (tmp_path / "r.json").exists()
    streets = run("eval", *words[:2], "--shards", shards / "streets", *words[4:], "--task", "panoptic")
    assert streets.exit_code == 1 and "streets-train has no segments" in streets.stderr


def test_what_does_not_fit_or_is_no_number_is_a_bad_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LabelList(("a", "b"), ("", ""), (None, None), np.eye(6, dtype=np.float32)[:2])
    image = np.zeros((24, 32, 3), dtype=np.uint8)
    predictor = learner().predictor(labels, Views(0))
    ways = (predictor.classes, predictor.segments, predictor.instances)
    monkeypatch.setattr(predictor, "_ask", lambda images: (_ for _ in ()).throw(MemoryError()))
    for ask in ways:
        with pytest.raises(SampleError, match="32x24 pixels the image does not fit"):
            ask(image)
    monkeypatch.setattr(predictor, "_ask", lambda images: (torch.full((3, 3), torch.nan), torch.zeros(3, 6, 8)))
    for ask in ways:
        with pytest.raises(SampleError, match="not a number"):
            ask(image)


def learner(**changes: Any) -> LmsegLearner:
    torch.manual_seed(0)
    vocabulary = Vocabulary(6, ("a",), ("x", "y"), ((("a", 0),), (("a", 1),)))
    settings = LmsegSettings(**{**SMALL, **changes})
    return LmsegLearner(settings, vocabulary, build_model("tiny", settings.query_dim)).eval()


def asked(model: LmsegLearner, vectors: np.ndarray[Any, Any], image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    count = len(vectors)
    labels = LabelList(tuple(map(str, range(count))), ("",) * count, (None,) * count, vectors.astype(np.float32))
    return torch.cat([s for _, s in model.predictor(labels, Views(short_edge=0)).scores(image)], dim=1).numpy()


def test_words_guide_masks_only_where_queries_look_at_them() -> None:
    rng = np.random.default_rng(0)
    image, vectors = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), rng.normal(size=(3, 6))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    for looks in (True, False):
        model = learner(text_attention=looks)
        _, memory = model.see(pixels)
        decoded = []
        for some in (vectors, vectors[:2]):
            words = model.words(torch.from_numpy(some).float())
            assert words is not None
            padding = torch.zeros(1, len(some), dtype=torch.bool)
            decoded.append(model.decode(model.queries, memory, words[None], padding)[-1])
        assert torch.equal(*decoded) is not looks
    scores = asked(model, vectors[[2, 0, 1]], image)
    assert scores == pytest.approx(asked(model, vectors, image)[[2, 0, 1]], abs=1e-5)


def test_equal_words_are_one_label() -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    vectors = np.eye(6)[[0, 1, 0]]
    assert asked(learner(), vectors, image).shape == (2, 16, 16)
    labels = LabelList(("a", "b", "c"), ("",) * 3, (None,) * 3, vectors.astype(np.float32))
    assert learner().predictor(labels, Views()).predicted_as.tolist() == [0, 1, 0]


def test_views_and_windows_average_and_segments_need_one_look() -> None:
    rng = np.random.default_rng(1)
    image, model = rng.integers(0, 255, (40, 56, 3), dtype=np.uint8), learner()
    labels = LabelList(("a", "b"), ("", ""), (None, None), rng.normal(size=(2, 6)).astype(np.float32))
    single = [torch.cat([s for _, s in model.predictor(labels, Views(0)).scores(view)], 1) for view in (
        image, image[:, ::-1].copy()
    )]  # fmt: skip
    both = torch.cat([s for _, s in model.predictor(labels, Views(0, flip=True)).scores(image)], 1)
    assert torch.allclose(both, (single[0] + single[1].flip(2)) / 2, atol=1e-5)
    slid = model.predictor(labels, Views(0, window=32)).classes(image)
    assert slid.shape == (40, 56)
    with pytest.raises(UsageError, match="one look"):
        model.predictor(labels, Views(0, flip=True)).segments(image)


def test_an_image_is_looked_at_once_for_labels_segments_and_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner()
    labels = LabelList(("a", "b"), ("", ""), (None, None), np.eye(6, dtype=np.float32)[:2])
    predictor = model.predictor(labels, Views(0))
    looks: list[torch.Tensor] = []

    def answers(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        return [predictor.classes(image), predictor.segments(image).ids, predictor.instances(image).scores]

    def see(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        looks.append(images)
        return LmsegLearner.see(model, images)

    monkeypatch.setattr(model, "see", see)
    first, second = (np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8) for seed in (1, 2))
    found = answers(first)
    assert len(looks) == 1
    assert np.array_equal(predictor.classes(second), model.predictor(labels, Views(0)).classes(second))
    second[:] = first  # what counts is what the array holds now
    assert all(np.array_equal(one, other) for one, other in zip(found, answers(second), strict=True))


def test_things_have_numbers_of_their_own_and_stuff_has_one() -> None:
    """Unlike transformers' post-processing, which gives sky, person, sky, person the ids 1, 2, 1, 2."""
    sure = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.9, 0.0], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    masks = torch.zeros(5, 2, 8)
    for query in range(4):
        masks[query, :, 2 * query : 2 * query + 2] = 0.9
    masks[1, 0, 2] = 0.4  # the best there, but not inside its own mask
    masks[4] = 1.0
    merged = Merged(sure, 0.5, 0.8)
    merged.begin(2, 8)
    for top in range(2):
        merged.add(slice(top, top + 1), masks[merged.queries, top : top + 1])
    ids, labels, scores = merged.segments(np.array([False, True]))
    assert ids[1].tolist() == [1, 1, 2, 2, 1, 1, 3, 3] and ids[0, 2] == 0
    assert labels.tolist() == [0, 1, 1] and scores.tolist() == pytest.approx([0.9, 0.9, 0.8])


def test_what_surer_segments_cover_is_dropped() -> None:
    sure = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
    masks = torch.full((2, 1, 10), 0.9)
    masks[0, :, 7:] = 0.1
    for least, wanted in ((0.8, [1] * 7 + [0] * 3), (0.3, [1] * 7 + [2] * 3)):
        merged = Merged(sure, 0.5, least)
        merged.begin(1, 10)
        merged.add(slice(0, 1), masks)
        assert merged.segments(np.array([True]))[0][0].tolist() == wanted


def batch_of(mask: Tensor, ids: Tensor, segments: Segments | None) -> Batch:
    nothing = torch.zeros(0, 4)
    return Batch(
        step=0, images=torch.zeros(1, 3, *mask.shape, dtype=torch.uint8), masks=mask[None], boxes=[nothing],
        box_classes=[nothing[:, 0].long()], box_embeddings=[None], datasets=["a"], dataset_ids=torch.zeros(1).long(),
        annotation_types=["mask"], keys=["k"], skipped=[], unfinished=[], places=[0], whole=1,
        instances=ids[None], segments=[segments],
    )  # fmt: skip


def test_targets() -> None:
    """Labels 0, 1: things; 2: stuff. A thing outside all segments, a crowd, and what has no label are not known."""
    mask = torch.tensor([[0, 0, 1, 1, 0, 2, 2, IGNORE, 1]])
    ids = torch.tensor([[5, 6, 7, 8, 0, 9, 0, 0, 3]], dtype=torch.int32)
    segments = Segments(
        torch.tensor([5, 6, 7, 8, 9, 3]),
        torch.tensor([0, 0, 1, 1, 2, IGNORE]),
        torch.tensor([False, False, False, True, False, False]),
    )
    things = torch.tensor([True, True, False])
    (found,) = targets_of(batch_of(mask, ids, segments), things)
    assert found.labels.tolist() == [0, 0, 1, 2]
    assert [torch.nonzero(each[0]).flatten().tolist() for each in found.masks] == [[0], [1], [2], [5, 6]]
    assert torch.nonzero(found.known[0]).flatten().tolist() == [0, 1, 2, 5, 6]
    for segments_, whole in ((None, False), (segments, True)):
        (regions,) = targets_of(batch_of(mask, ids, segments_), things, whole_classes=whole)
        assert regions.labels.tolist() == [0, 1, 2] and regions.known.sum() == 8


def slow_targets(batch: Batch, place: int, things: Tensor) -> tuple[list[int], list[Tensor], Tensor]:
    """Labels and masks of one view, segment by segment, then label by label; and what is known."""
    mask, segments = batch.masks[place], batch.segments[place]
    known, apart = mask != IGNORE, torch.zeros_like(mask, dtype=torch.bool)
    labels, masks = [], []
    if segments is not None and batch.instances is not None:
        each = list(zip(segments.ids.tolist(), segments.classes.tolist(), segments.crowd.tolist(), strict=True))
        for id_, label, crowd in each:
            inside = batch.instances[place] == id_
            if label == IGNORE or crowd:
                known = known & ~inside
            elif things[label]:
                apart = apart | inside
        for id_, label, crowd in each:
            if label != IGNORE and not crowd and things[label]:
                labels.append(label)
                masks.append((batch.instances[place] == id_) & known)
        known = known & ~(~apart & things[mask.clamp(min=0)])
    for label in range(len(things)):
        labels.append(label)
        masks.append((mask == label) & known & ~apart)
    kept = [number for number, each in enumerate(masks) if each.any()]
    return [labels[number] for number in kept], [masks[number] for number in kept], known


def test_targets_of_many_views_are_those_of_the_slow_way() -> None:
    rng = torch.Generator().manual_seed(0)
    views = []
    for number in range(24):
        mask = torch.randint(IGNORE, 6, (8, 9), generator=rng)
        ids = torch.randint(0, 9, (8, 9), generator=rng, dtype=torch.int32) * (torch.rand(8, 9, generator=rng) < 0.7)
        segments = Segments(
            torch.randperm(8, generator=rng) + 1, torch.randint(IGNORE, 6, (8,), generator=rng),
            torch.rand(8, generator=rng) < 0.2,
        )  # fmt: skip
        views.append(batch_of(mask, ids, segments if number % 3 else None))
    several = replace(
        views[0], masks=torch.cat([each.masks for each in views]), segments=[each.segments[0] for each in views],
        instances=torch.cat([each.instances for each in views if each.instances is not None]),
        annotation_types=["mask"] * 24,
    )  # fmt: skip
    several = replace(several, keys=["k"] * 24)
    things = torch.tensor([True, False, True, False, False, True])
    for place, found in enumerate(targets_of(several, things)):
        labels, masks, known = slow_targets(several, place, things)
        assert found.labels.tolist() == labels and torch.equal(found.known, known)
        assert torch.equal(found.masks, torch.stack(masks))


@pytest.mark.parametrize("changes", [{"classifier": "heads"}, {"space_queries": True, "targets": "classes"}])
def test_baselines_and_queries_of_their_own(data: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    shards, bank = data
    result = train([shards], bank, tmp_path / "run", config=config(steps=2, batch_size=6, **changes), device="cpu")
    results = evaluate(
        result.run, [shards], bank, tmp_path / "r.json", views=Views(short_edge=0), split="train", tasks=["panoptic"]
    )
    assert {each.data.dataset: each.panoptic is not None for each in results.sets} == {"crowd": True, "streets": False}
    trained = load_trained(result.run)
    both = LabelList.of(ToyThings().space, Bank.load(bank))
    streets = LabelList.of(STREETS.space, Bank.load(bank))
    joint = replace(
        both,
        names=both.names + streets.names,
        texts=both.texts + streets.texts,
        keys=both.keys + streets.keys,
        vectors=np.concatenate([both.vectors, streets.vectors]),
    )
    if "classifier" in changes:
        with pytest.raises(UsageError, match="of 2 datasets"):
            trained.predictor(joint, Views())
    else:
        image = np.zeros((16, 16, 3), dtype=np.uint8)
        assert trained.predictor(joint, Views(0)).protocol()["queries"] == 3 * 8
        assert trained.predictor(streets, Views(0)).protocol()["queries"] == 8
        assert trained.predictor(joint, Views(0)).classes(image).shape == (16, 16)


def test_predict_writes_segments(data: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    shards, bank = data
    result = train([shards / "crowd"], bank, tmp_path / "run", config=config(segment_score=0.0), device="cpu")
    image = ShardSet.open(shards / "crowd" / "train").read(0).image
    Image.fromarray(image).save(tmp_path / "photo.png")
    words = [tmp_path / "photo.png", "--checkpoint", result.run, "--labels", "crowd:*", "--out", tmp_path / "out"]
    done = run("predict", *words, "--segments", "--coco", "--json")
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)["written"][0]
    ids = np.asarray(Image.open(written["instances"]))
    told = json.loads(Path(written["labels"]).read_text())
    assert ids.dtype == np.uint16 and ids.shape == image.shape[:2]
    assert sorted({*np.unique(ids).tolist()} - {0}) == [row["id"] for row in told["segments"]] != []
    mask = np.asarray(Image.open(written["mask"]))
    things = {"crowd:car": True, "crowd:person": True, "crowd:road": False, "crowd:sky": False}
    for row in told["segments"]:
        assert (mask[ids == row["id"]] == row["label"]).all() and row["area"] == (ids == row["id"]).sum()
        assert row["thing"] is things[f"crowd:{told['labels'][row['label']]['name']}"]
    panoptic = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    rgb = np.asarray(Image.open(tmp_path / "out" / "panoptic" / "photo.png")).astype(int)
    assert (rgb[..., 0] + 256 * rgb[..., 1] == ids).all()
    assert [info["id"] for info in panoptic["annotations"][0]["segments_info"]] == [r["id"] for r in told["segments"]]
    assert [category["isthing"] for category in panoptic["categories"]] == [1, 1, 0, 0]
    refused = run("predict", *words, "--segments", "--flip")
    assert refused.exit_code == 2 and "one look" in refused.output
