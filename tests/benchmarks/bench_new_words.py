"""What new words cost and bring: three ways to score a label that no column of a run stands for, on toy worlds.

    labelmerge demo --out demo-out --seeds 3
    python tests/benchmarks/bench_new_words.py demo-out [--words 100]

Asks the demo's runs by concepts for the labels of both test sets, alone and with more words that no image shows: words
of the shipped datasets that are far (cosine below 0.75) from every column. Prints mIoU in percent over the labels that
training has and has not, and which share of the pixels the added words take. A cosine is divided by

- nothing: as if it were a column's;
- root: the root of the largest cosine that the run can reach, as labelmerge does;
- reach: that largest cosine itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
import torch

from labelmerge.bank.bank import Bank
from labelmerge.demo.worlds import HELD_OUT, unseen_labels
from labelmerge.encoders.encoders import load_encoder
from labelmerge.labels import LabelSpace
from labelmerge.methods.meaning import RunColumns, labels_of, reachable, run_columns
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import Trained, load_trained
from labelmerge.model.views import Views
from labelmerge.shardset.shardset import ShardSet

Vectors = npt.NDArray[np.float32]
WAYS: dict[str, Callable[[Vectors], Vectors]] = {"nothing": np.ones_like, "root": np.sqrt, "reach": np.copy}
FAR = 0.75


def with_words(labels: LabelList, words: Vectors, divisor: Callable[[Vectors], Vectors], run: RunColumns) -> LabelList:
    """The labels and the words, every text that is not a column scored by `divisor` of what can be reached."""
    assert labels.several is not None
    several = (*labels.several, *words[:, None])
    divisors = []
    for place, own in enumerate(several):
        known = len(labels.columns[place]) if place < len(labels.columns) else 0
        divisors.append(np.concatenate([np.ones(known, np.float32), divisor(reachable(run.vectors, own[known:]))]))
    names = (*labels.names, *(f"word {n}" for n in range(len(words))))
    keys = (*labels.keys, *[None] * len(words))
    return LabelList(names, names, keys, np.stack([own[0] for own in several]), several, tuple(divisors))


def confusion(trained: Trained, labels: LabelList, shards: ShardSet, space: LabelSpace) -> npt.NDArray[np.int64]:
    """``[M, K]`` pixels of each of the M labels of the set, by what of the K was predicted."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="what `labelmerge demo --out` made")
    parser.add_argument("--words", type=int, default=100, metavar="N", help="how many words to add; default 100")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder("offline")
    named = sorted({row.split(",")[0] for row in _names()})
    vectors = encoder.encode([f"An image of {name}." for name in named])
    print(
        "| divided by | words added | seen | unseen | CamVid | pixels lost to added words |\n|---|---|---|---|---|---|"
    )
    worlds = sorted(options.demo.glob("seed-*"))
    for added in (0, options.words):
        for way, divisor in WAYS.items():
            rows = [measure(world, divisor, vectors, added) for world in worlds]
            print(
                f"| {way} | {added} | {' | '.join(f'{100 * mean(cells):.1f}' for cells in zip(*rows, strict=True))} |"
            )


def measure(world: Path, divisor: Callable[[Vectors], Vectors], words: Vectors, added: int) -> tuple[float, ...]:
    """Seen, unseen, CamVid and lost, of one world."""
    trained = load_trained(world / "runs/concepts")
    run = run_columns(trained.checkpoint, trained.learner)
    assert run is not None and trained.checkpoint.bank_folder is not None
    bank = Bank.load(trained.checkpoint.bank_folder)
    far = words[(words @ run.vectors.T).max(axis=1) < FAR]
    far = far[np.random.default_rng(0).permutation(len(far))[:added]]
    seen: list[float] = []
    unseen: list[float] = []
    camvid: list[float] = []
    lost: list[float] = []
    for dataset in HELD_OUT:
        (split,) = (path.parent for path in (world / "shards" / dataset).glob("*/manifest.json"))
        shards = ShardSet.open(split)
        asked = with_words(labels_of(shards.space, bank, run), far, divisor, run)
        counts = confusion(trained, asked, shards, shards.space)
        right = counts.diagonal()
        either = counts.sum(axis=1) + counts[:, : len(right)].sum(axis=0) - right
        iou = right / np.maximum(either, 1)
        new = np.array([name in unseen_labels(dataset) for name in shards.space.names])
        seen += iou[~new & (either > 0)].tolist()
        unseen += iou[new].tolist()
        camvid += iou[either > 0].tolist() if dataset == "camvid" else []
        lost.append(counts[:, len(right) :].sum() / counts.sum())
    return mean(seen), mean(unseen), mean(camvid), mean(lost)


def _names() -> list[str]:
    from labelmerge.catalog import dataset_names, load_descriptions, load_recipe

    return [row.name for dataset in dataset_names() for row in load_descriptions(load_recipe(dataset))]


if __name__ == "__main__":
    main()
