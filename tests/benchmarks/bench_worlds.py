"""The demo's table over several worlds, model by model, and what new words cost and bring.

    python tests/benchmarks/bench_worlds.py run --out bench-out --worlds 0 1 2 [--rows NAME …] --results figures
    python tests/benchmarks/bench_worlds.py table figures/*.json

`run` trains and measures each row of docs/demo.md's table in each world as `labelmerge demo` does, on the CPU with one
thread, so that rows and worlds may be jobs of their own, side by side; each writes a small JSON. `--banks FOLDER` takes
the banks of an earlier run (`embed` makes them alone) where there is no sentence encoder.

The rows `sentences` and `concepts` are asked anew for the labels of both test sets under a whole family of rules: the
cosine with a text that is no column is divided by r^γ, where r is the largest cosine that the run's columns reach
(docs/prediction.md, rule 7; labelmerge has γ = 0.5). γ moves along the trade between labels that training has and
those that it has not, so two merges are compared by the whole curve (Chao et al., ECCV 2016: the area under it) and
not at one point of it. Asked is, too: with 100 more words that no image shows, which share of the pixels do these
take? And among the village's new labels alone, at their own pixels: how often is the right one chosen (chance is
1/7)?
"""

from __future__ import annotations

import argparse
import fcntl
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from labelmerge.bank.bank import Bank
from labelmerge.catalog import dataset_names, load_descriptions, load_recipe
from labelmerge.demo.datasets import write_worlds
from labelmerge.demo.experiment import FULL, Banks, Workplace, embed, shard_worlds, train_and_measure
from labelmerge.demo.results import MERGED, SINGLE, Mean, Scores, table
from labelmerge.demo.worlds import HELD_OUT, unseen_labels
from labelmerge.encoders.encoders import load_encoder
from labelmerge.files import write_json
from labelmerge.labels import LabelSpace
from labelmerge.methods.meaning import labels_of, reachable, run_columns
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import Trained, load_trained
from labelmerge.model.views import Views
from labelmerge.shardset.shardset import ShardSet

Vectors = npt.NDArray[np.float32]
ROWS = (*MERGED, *(f"{SINGLE}/{dataset}" for dataset in FULL.single))
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WITH_WORDS = (0.5, 1.0)  # the γ at which more words are asked for, too
WORDS = 100
FAR = 0.75  # of these, no cosine with a column is above


def write_words(path: Path) -> None:
    """The shipped datasets' names as prompts, and their vectors."""
    names = sorted({row.name for dataset in dataset_names() for row in load_descriptions(load_recipe(dataset))})
    np.save(path, load_encoder("offline").encode([f"An image of {name}." for name in names]))


def make_world(root: Path, world: int, banks: Banks) -> Workplace:
    """A world with its shards, and the banks of all worlds; whoever comes first makes them."""
    place = Workplace(root / f"seed-{world}")
    place.root.mkdir(parents=True, exist_ok=True)
    with (place.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place.root / "drawn").exists():
            write_worlds(place.worlds, FULL.images, world)
            if not (banks.root / "words.npy").exists():
                embed(banks, place.worlds)
                write_words(banks.root / "words.npy")
            shard_worlds(place)
            (place.root / "drawn").touch()
    return place


def with_words(labels: LabelList, words: Vectors, columns: Vectors, gamma: float) -> LabelList:
    """The labels and the words, the cosine of every text that is not a column divided by r^γ."""
    several = labels.several if labels.several is not None else tuple(labels.vectors[:, None])
    several = (*several, *words[:, None])
    divisors = []
    for place, own in enumerate(several):
        known = len(labels.columns[place]) if place < len(labels.columns) else 0
        divisors.append(np.concatenate([np.ones(known, np.float32), reachable(columns, own[known:]) ** gamma]))
    names = (*labels.names, *(f"word {n}" for n in range(len(words))))
    keys = (*labels.keys, *[None] * len(words))
    return LabelList(names, names, keys, np.stack([own[0] for own in several]), several, tuple(divisors))


def only(labels: LabelList, places: Sequence[int]) -> LabelList:
    """Some of the labels, each asked for as it was."""

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[place] for place in places)

    assert labels.several is not None and labels.divisors is not None
    vectors, several, divisors = labels.vectors[list(places)], pick(labels.several), pick(labels.divisors)
    return LabelList(pick(labels.names), pick(labels.texts), pick(labels.keys), vectors, several, divisors)


def confusion(trained: Trained, labels: LabelList, shards: ShardSet, space: LabelSpace) -> npt.NDArray[np.int64]:
    """``[K, M]`` pixels of each of the K labels of the set, by what of the M was predicted."""
    predictor = trained.predictor(labels, Views())
    counts = np.zeros((len(space), len(labels.names)), dtype=np.int64)
    place = np.full(65536, -1)
    place[list(space.indices)] = np.arange(len(space))
    for number in range(len(shards)):
        picture = shards.fetch(number).picture()
        assert picture.mask is not None
        truth = place[picture.mask]
        np.add.at(counts, (truth[truth >= 0], predictor.classes(picture.image)[truth >= 0]), 1)
    return counts


def new_words(place: Workplace, row: str, banks: Banks) -> dict[str, Any]:
    """What a run makes of labels that training has not, under each rule."""
    trained = load_trained(place.run(row))
    run = run_columns(trained.checkpoint, trained.learner)
    bank = Bank.load(trained.checkpoint.bank_folder) if run is not None else Bank.load(banks.of(row))  # type: ignore[arg-type]
    if run is not None:
        columns = run.vectors
    else:
        vector_of = dict(zip(bank.texts, bank.vectors, strict=True))
        columns = np.stack([vector_of[text] for text in trained.learner.vocabulary.texts])
    words = np.load(banks.root / "words.npy")
    far = words[(words @ columns.T).max(axis=1) < FAR]
    far = far[np.random.default_rng(0).permutation(len(far))[:WORDS]]
    found: dict[str, Any] = {}
    for gamma in GAMMAS:
        for added in (0, WORDS) if gamma in WITH_WORDS else (0,):
            found[f"{gamma:g} + {added}"] = _asked(trained, place, bank, run, columns, far[:added], gamma)
    return found


def _asked(
    trained: Trained, place: Workplace, bank: Bank, run: Any, columns: Vectors, far: Vectors, gamma: float
) -> dict[str, Any]:
    seen: list[float] = []
    unseen: dict[str, float] = {}
    lost, alone = [], float("nan")
    for dataset in HELD_OUT:
        (split,) = (path.parent for path in (place.shards / dataset).glob("*/manifest.json"))
        shards = ShardSet.open(split)
        asked = with_words(labels_of(shards.space, bank, run), far, columns, gamma)
        counts = confusion(trained, asked, shards, shards.space)
        right = counts.diagonal()
        either = counts.sum(axis=1) + counts[:, : len(right)].sum(axis=0) - right
        iou = right / np.maximum(either, 1)
        new = np.array([name in unseen_labels(dataset) for name in shards.space.names])
        seen += iou[~new & (either > 0)].tolist()
        unseen |= {shards.space.names[k]: float(iou[k]) for k in np.flatnonzero(new)}
        lost.append(float(counts[:, len(right) :].sum() / counts.sum()))
        if new.any() and not len(far):
            among = confusion(trained, only(asked, np.flatnonzero(new).tolist()), shards, shards.space)[new]
            some = among.sum(axis=1) > 0
            alone = float((among.diagonal()[some] / among.sum(axis=1)[some]).mean())
    return {"seen": mean(seen), "unseen": unseen, "lost": mean(lost), "right among new": alone}


def run(options: argparse.Namespace) -> None:
    """Train and measure; what has its figures already is not run again."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    banks = Banks(options.banks or options.out)
    size = replace(FULL, steps=options.steps)
    for world in options.worlds:
        for row in options.rows:
            file = options.results / f"{row.replace('/', '-')}-{options.steps}-{world}.json"
            if file.exists():
                continue
            place = make_world(options.out, world, banks)
            scores = train_and_measure(row, place, banks, size, world)
            figures: dict[str, Any] = {"world": world, "steps": options.steps, "scores": scores.to_json()}
            if row in ("sentences", "concepts"):
                figures["new words"] = new_words(place, row, banks)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, figures)
            print(file, {name: round(100 * value, 1) for name, value in scores.metrics().items()}, flush=True)


def show(options: argparse.Namespace) -> None:
    """The tables, of all worlds that have all rows, and of new words in all that have both."""
    from labelmerge.demo.demo import summarise  # with all that its page needs

    by_world: dict[int, dict[str, dict[str, Any]]] = {}
    for file in options.files:
        figures = json.loads(file.read_text())
        by_world.setdefault(figures["world"], {})[figures["scores"]["method"]] = figures
    whole = {world: rows for world, rows in sorted(by_world.items()) if set(ROWS) <= rows.keys()}
    if whole:
        print(f"worlds {', '.join(map(str, whole))}")
        scores = [(world, [Scores(**rows[row]["scores"]) for row in ROWS]) for world, rows in whole.items()]
        print(table(summarise(scores, FULL)), end="\n\n")
    both = {w: rows for w, rows in sorted(by_world.items()) if {"sentences", "concepts"} <= rows.keys()}
    if not both:
        if not whole:
            raise SystemExit("no table: no world has all rows, nor both sentences and concepts")
        return
    print(f"new words in worlds {', '.join(map(str, both))}")
    print("| merge | γ | words added | seen | unseen | without *coach* | right among new | pixels lost |")
    print(8 * "|---" + "|")
    for row in ("sentences", "concepts"):
        curves = [rows[row]["new words"] for rows in both.values()]
        for rule in curves[0]:
            gamma, _, added = rule.partition(" + ")
            at = [curve[rule] for curve in curves]
            columns = (
                [each["seen"] for each in at],
                [mean(each["unseen"].values()) for each in at],
                [mean(v for name, v in each["unseen"].items() if name != "coach") for each in at],
                [each["right among new"] for each in at],
                [each["lost"] for each in at],
            )
            print(f"| {row} | {gamma} | {added} | {' | '.join(Mean.of(each).percent() for each in columns)} |")
    areas = {row: [area(rows[row]["new words"]) for rows in both.values()] for row in ("sentences", "concepts")}
    for row, each in areas.items():
        print(f"area under seen × unseen without coach, {row}: {Mean.of(each).percent()}")


def area(curve: dict[str, Any]) -> float:
    """Under the curve of seen against unseen (without *coach*), by trapezoids, from no new word to the largest γ."""
    points = [
        (mean(v for name, v in each["unseen"].items() if name != "coach"), each["seen"])
        for rule, each in curve.items() if rule.endswith("+ 0")
    ]  # fmt: skip
    points = [(0.0, max(seen for _, seen in points)), *sorted(points)]
    return float(sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(points, points[1:], strict=False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    first = verbs.add_parser("run")
    first.add_argument("--out", type=Path, required=True, metavar="DIR")
    first.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    first.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    first.add_argument("--steps", type=int, default=1000, metavar="N")
    first.add_argument("--banks", type=Path, metavar="DIR")
    first.add_argument("--results", type=Path, required=True, metavar="DIR")
    first.set_defaults(do=run)
    second = verbs.add_parser("table")
    second.add_argument("files", type=Path, nargs="+")
    second.set_defaults(do=show)
    third = verbs.add_parser("embed", help="make the banks alone")
    third.add_argument("--out", type=Path, required=True, metavar="DIR")
    third.set_defaults(do=lambda options: make_world(options.out, 0, Banks(options.out)))
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
