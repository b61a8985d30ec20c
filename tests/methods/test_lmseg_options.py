"""LMSeg's baselines and parts: outputs in place of words, what is looked at first, void, things that are not told."""

from __future__ import annotations

import json
import logging
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from labelmerge.compare.records import read_records
from labelmerge.compare.tables import mixed_table
from labelmerge.errors import ConfigError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import IGNORE
from labelmerge.methods.lmseg import predictor as lmseg_predictor
from labelmerge.methods.lmseg.decoder import DecoderLayer
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.method import METHOD
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import targets_of
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.build import build_model
from labelmerge.model.views import Views
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..conftest import Run
from ..loading.toy_shards import Toy, toy_bank
from .test_lmseg import PLAIN, SMALL, batch_of, config
from .things import ToyThings

SPLITS = ("train", "val")
IMAGE = np.random.default_rng(3).integers(0, 255, (24, 32, 3), dtype=np.uint8)
AS_IT_IS = Views(short_edge=0)


def learner(labels: tuple[tuple[tuple[str, int], ...], ...], **changes: Any) -> LmsegLearner:
    torch.manual_seed(0)
    vocabulary = Vocabulary(6, ("a", "b"), tuple("wxyz"[: len(labels)]), labels)
    settings = LmsegSettings(**{**SMALL, **changes})
    return LmsegLearner(settings, vocabulary, build_model("tiny", settings.query_dim)).eval()


def listed(keys: list[tuple[str, int] | None], vectors: np.ndarray[Any, Any] | None = None) -> LabelList:
    names = tuple(map(str, range(len(keys))))
    vectors = np.eye(6)[: len(keys)] if vectors is None else vectors
    return LabelList(names, ("",) * len(keys), tuple(keys), vectors.astype(np.float32))


SHARED = ((("a", 0), ("b", 1)), (("a", 1),), (("b", 0),))  # the first label of a and the second of b are one column


def test_the_union_has_one_output_for_labels_of_one_column() -> None:
    model = learner(SHARED, classifier="union")
    assert model.heads is not None and model.heads.out_features == 4
    assert model.outputs == {("a", 0): 0, ("b", 1): 0, ("a", 1): 1, ("b", 0): 2}
    every = model.predictor(listed([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 7)]), AS_IT_IS)
    assert every.predicted_as.tolist() == [0, 1, 2, 0, -1]  # b 7 is on no image of training
    # By hand: of the queries' outputs those that are asked for, and "nothing".
    features, memory = model.see(torch.from_numpy(IMAGE).permute(2, 0, 1)[None])
    queries = model.decode(model.queries, memory, None, torch.zeros(1, 3, dtype=torch.bool))[-1]
    wanted = model.heads(queries)[0].softmax(-1).detach()
    assert torch.allclose(every.once(IMAGE).classes, wanted, atol=1e-5)
    some = model.predictor(listed([("b", 0), ("a", 0)]), AS_IT_IS).once(IMAGE).classes
    assert torch.allclose(some, wanted[:, [2, 0, 3]] / wanted[:, [2, 0, 3]].sum(1, keepdim=True), atol=1e-5)


def test_the_union_wants_one_column_for_each_label() -> None:
    with pytest.raises(ConfigError, match="merge name"):
        learner(((("a", 0),), (("a", 0), ("a", 1))), classifier="union")


def test_heads_answer_for_one_dataset_at_a_time() -> None:
    model = learner(SHARED, classifier="heads")
    assert model.heads is not None and model.heads.out_features == 4 + 2
    own = model.predictor(listed([("b", 0), ("b", 1), ("b", 2)]), AS_IT_IS)
    assert own.predicted_as.tolist() == [0, 1, -1]
    by_text = replace(listed([None]), texts=("w",))  # what both datasets know: the first that does
    assert model.predictor(by_text, AS_IT_IS).positions.tolist() == [0]
    with pytest.raises(UsageError, match="2 datasets"):
        model.predictor(listed([("a", 1), ("b", 0)]), AS_IT_IS)
    with pytest.raises(UsageError, match="none of these labels occurred"):
        model.predictor(listed([("b", 5)]), AS_IT_IS)


def test_the_union_learns_over_all_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A road that two sets know by one name is one output; mixed lists are asked of the union, and not of heads."""
    toys = [ToyThings(), Toy("streets", ("road", "sky", "bus"))]
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    shards = [tmp_path / "shards"]
    for classifier, merge in (("union", "name"), ("heads", "concepts")):
        settings = config(steps=2, classifier=classifier, merge=merge)
        run = train(shards, tmp_path / "bank", tmp_path / classifier, config=settings, device="cpu").run
        model = load_trained(run).learner
        assert isinstance(model, LmsegLearner) and model.heads is not None
        # car, person, road, sky, bus; or each label's own, and a "nothing" for both sets
        assert model.heads.out_features == (5 + 1 if classifier == "union" else 7 + 2)
        out = tmp_path / f"{classifier}.json"
        results = evaluate(
            run, shards, None, out, views=AS_IT_IS, split="train", mixed=True, tasks=["panoptic"], device="cpu"
        )
        assert all((each.mixed is not None) is (classifier == "union") for each in results.sets)
        told = json.loads(out.read_text())["sets"]
        assert [("panoptic" in each.get("mixed", {})) for each in told] == [classifier == "union", False]
        assert ("mixed PQ %" in results.table()) is (classifier == "union")
        (record,) = read_records([out])
        table = mixed_table([(record, record.results[0])])
        assert (table is not None) is (classifier == "union")
        assert table is None or table.columns == [
            "run", "crowd-train: mIoU", "streets-train: mIoU", "mean mIoU", "crowd-train: PQ"
        ]  # fmt: skip
    assert "nothing is measured with one list of all sets' labels: these labels are of 2 datasets" in caplog.text


def test_what_is_looked_at_first() -> None:
    torch.manual_seed(0)
    queries, memory, words = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    padding = torch.tensor([[False, False, False, True], [False] * 4])
    found = []
    for first in (False, True):
        torch.manual_seed(1)
        layer = DecoderLayer(8, 2, text=True, skip=0.0, text_first=first).eval()
        assert layer.text is not None and layer.words_norm is not None
        among, visual, text, mlp = layer.norms
        q = queries
        own = among(q)
        q = q + layer.among(own, own, own)[0]
        for kind in ("text", "image") if first else ("image", "text"):
            if kind == "text":
                said = layer.words_norm(words)
                q = q + layer.text(text(q), said, said, key_padding_mask=padding)[0]
            else:
                seen = layer.memory_norm(memory)
                q = q + layer.visual(visual(q), seen, seen)[0]
        found.append(layer(queries, memory, words, padding))
        assert torch.allclose(found[-1], q + layer.mlp(mlp(q)), atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_void_may_be_in_no_segment() -> None:
    mask = torch.tensor([[0, 1, IGNORE, 0]])
    batch = batch_of(mask, torch.zeros_like(mask, dtype=torch.int32), None)
    things = torch.tensor([True, True])
    plain, negative = (targets_of(batch, things, void_is_negative=each)[0] for each in (False, True))
    assert plain.known.tolist() == [[True, True, False, True]] and negative.known.all()
    assert torch.equal(plain.masks, negative.masks) and plain.labels.tolist() == negative.labels.tolist()


def test_the_nearest_of_a_labels_vectors_names_it() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = learner(((("a", 0),), (("a", 1),)))
    each = model.predictor(listed([None] * 4, vectors), AS_IT_IS)
    several = replace(listed([None] * 3, vectors[[0, 1, 3]]), several=(vectors[:1], vectors[1:3], vectors[3:]))
    one, joined = (predictor.once(IMAGE) for predictor in (each, model.predictor(several, AS_IT_IS)))
    logits = one.classes.log()
    wanted = torch.stack([logits[:, 0], logits[:, 1:3].amax(1), logits[:, 3], logits[:, 4]], dim=1).softmax(1)
    assert torch.allclose(joined.classes, wanted, atol=1e-5) and torch.allclose(one.masks, joined.masks, atol=1e-4)


def test_many_labels_take_no_more_memory_than_many_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 6))
    asked = learner(((("a", 0),), (("a", 1),))).predictor(listed([None] * 40, vectors), AS_IT_IS)
    whole = [scores for _, scores in asked.scores(IMAGE)]
    monkeypatch.setattr(lmseg_predictor, "_STRIPE_ELEMENTS", 40 * 3 * IMAGE.shape[1])
    stripes = [scores for _, scores in asked.scores(IMAGE)]
    assert len(whole) == 1 and [each.shape[1] for each in stripes] == [3] * 8
    assert torch.allclose(torch.cat(stripes, dim=1), whole[0], atol=1e-6)


def test_things_that_are_not_told(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Segments of unknown kind stay apart, regions of classes don't, and training and evaluation say so."""
    untold = ToyThings()
    untold.changes = {}
    plain = Toy("streets", ("road", "sky"))
    toys = [untold, plain, Toy("things", ("cup", "pan"), "box", count=5)]
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    caplog.set_level(logging.WARNING)
    result = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=config(steps=1), device="cpu")
    assert "crowd: its recipe doesn't say which classes are things" in caplog.text and "`things`" in caplog.text
    assert "streets: its" not in caplog.text
    known = load_trained(result.run).learner.which_are_things()
    assert known == dict.fromkeys([("crowd", k) for k in range(4)] + [("things", 0), ("things", 1)], True)
    words = ["--checkpoint", result.run, "--shards", tmp_path / "shards" / "crowd", "--out", tmp_path / "r.json"]
    done = run("eval", *words, "--short-edge", 0, "--task", "panoptic")
    assert done.exit_code == 0 and "crowd-train: its recipe doesn't say" in done.stderr
    assert "its recipe" not in run("eval", *words, "--short-edge", 0).stderr


def test_a_set_that_tells_no_things_has_no_say(tmp_path: Path, run: Run) -> None:
    """Cars are things although a set of regions has cars, too; and where all sets are like that, all is stuff."""
    plain = Toy("streets", ("road", "car"))
    for toy in (ToyThings(), plain):
        toy.write(tmp_path / toy.name)
    toy_bank([ToyThings(), plain]).save(tmp_path / "bank")
    sets = [tmp_path / "crowd", tmp_path / "streets"]
    both = train(sets, tmp_path / "bank", tmp_path / "both", config=config(steps=1), device="cpu")
    assert load_trained(both.run).learner.which_are_things() == {("crowd", k): k < 2 for k in range(4)}
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    out = tmp_path / "masks"
    words = [tmp_path / "photo.png", "--labels", "streets:*, crowd:person", "--segments", "--coco", "--out", out]
    said = run("predict", *words, "--checkpoint", both.run).stderr
    assert "taken for things, as the nearest label that training tells of: car (crowd:car)" in said
    assert "taken for stuff, one segment for each label, as the nearest" in said
    categories = json.loads((out / "panoptic.json").read_text())["categories"]
    assert [(each["name"], each["isthing"]) for each in categories] == [("road", 0), ("car", 1), ("crowd:person", 1)]
    alone = train([tmp_path / "streets"], tmp_path / "bank", tmp_path / "alone", config=config(steps=1), device="cpu")
    assert load_trained(alone.run).learner.which_are_things() == {("streets", 0): False, ("streets", 1): False}


def test_how_sure_a_segment_has_to_be_is_asked_for(tmp_path: Path, run: Run) -> None:
    toy = ToyThings()
    toy.write(tmp_path / "shards")
    toy_bank([toy]).save(tmp_path / "bank")
    # Without a weight for "nothing" every query is soon something; without the focal loss masks are soon large.
    sure = config(steps=20, lr=1e-2, nothing_weight=0.0, focal_weight=0.0, segment_score=1.0, checkpoint_every=20)
    result = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=sure, device="cpu")
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    words = [tmp_path / "photo.png", "--labels", "crowd:*", "--checkpoint", result.run, "--out", out]
    told = run("predict", *words, "--segments")
    assert "(0 segments)" in told.stdout and "no segment in any image: none has a label of at least 1" in told.stderr
    told = run("predict", *words, "--segments", "--segment-score", "0")
    assert "(0 segments)" not in told.stdout and "try --segment-score" not in told.stderr
    assert json.loads((out / "photo.json").read_text())["segments"]
    assert "--segment-score is for --segments" in run("predict", *words, "--segment-score", "0.5").stderr

    words = ["--checkpoint", result.run, "--shards", tmp_path / "shards", "--out", out / "r.json", "--short-edge", 0]
    assert "is for --task panoptic" in run("eval", *words, "--segment-score", "0.5").stderr
    found = []
    for more in ((), ("--segment-score", "0")):
        assert run("eval", *words, "--task", "panoptic", *more).exit_code == 0
        results = json.loads((out / "r.json").read_text())
        counts = [each["panoptic"] for each in results["sets"][0]["classes"]]
        segments = sum(each["matched"] + each["wrong"] for each in counts)
        found.append((results["protocol"]["segments"]["score"], segments))
        assert ("--segment-score 0" in results["reproduce"]) == bool(more)
    assert found[0] == (1.0, 0) and found[1][0] == 0 and found[1][1] > 0
    ssiw = TrainConfig.from_dict({**PLAIN, "method": "ssiw", "steps": 1, "checkpoint_every": 1})
    plain = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "ssiw", config=ssiw, device="cpu")
    told = run("eval", *words, "--checkpoint", plain.run, "--segment-score", "0.5")
    assert told.exit_code != 0 and "the checkpoint's method knows no segments" in told.stderr


def test_the_comparisons_of_the_page_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """docs/methods.md: every variant's settings, inputs and model are checked by `compare --print`."""
    page = (Path(__file__).resolve().parents[2] / "docs/methods.md").read_text(encoding="utf-8")
    part = page.partition("### The paper's tables")[2].partition("\n### ")[0]
    blocks = dict(re.findall(r"^```(sh|toml)\n(.*?)^```", part, flags=re.DOTALL | re.MULTILINE))
    toys = [ToyThings(name=name, split=split) for name in ("ade20k", "cityscapes", "coco_panoptic") for split in SPLITS]
    for toy in toys:
        toy.write(tmp_path / "shards-out")
    toy_bank(toys[::2]).save(tmp_path / "bank")
    (tmp_path / "own-crops.toml").write_text(blocks["toml"])
    monkeypatch.chdir(tmp_path)
    commands = [line for line in blocks["sh"].replace("\\\n", " ").splitlines() if line]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)[1:]
        done = run(*words, "--set", "queries=4", "--print")
        assert done.exit_code == 0, done.stderr
        variants = words[words.index("--vary") + 1 :]
        assert len(done.stdout.splitlines()) == len(variants) + 1


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, []),
        ({"classifier": "heads"}, []),
        (
            {"attention_order": "text-visual", "text_attention": False},
            ["attention_order = text-visual has no effect: "],
        ),
        (
            {"classifier": "union", "text_attention": False, "query_temperature": 0.1},
            [
                "text_attention = False has no effect: classifier = union knows no words",
                "query_temperature = 0.1 has no effect: classifier = union knows no words",
            ],
        ),
        ({"prompt_vectors": 4}, ["prompt_vectors = 4 has no effect: there is no text_tower"]),
    ],
)
def test_settings_that_have_no_effect_are_told(
    settings: dict[str, Any], lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    METHOD.check(LmsegSettings(targets="classes", **settings), [], toy_bank([Toy("streets", ("road",))]))
    assert len(caplog.messages) == len(lines)
    assert all(said.startswith(line) for said, line in zip(caplog.messages, lines, strict=True))
