"""Do new words gain where a column is not one vector, but in every step another mixture of texts? On toy worlds.

    python tests/benchmarks/bench_drawn_texts.py --out bench-out --seeds 6 7 8 [--steps 1000]

Training draws the pixels of a concept to one vector, and a text that no column stands for then lies beside what the
model has learnt to say. Here a column's vector is drawn anew in each step: a random mixture of the sentences *and the
bare names* of the labels that stand for it alone. Trained and asked is each world's concepts run (`fixed`) and the same
with drawn vectors (`drawn`); both are asked by the columns' fixed vectors, new words by rule 7 (docs/prediction.md).
Prints mIoU in percent on labels that training has and has not, and on the latter without *coach*.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from labelmerge.bank.bank import Bank
from labelmerge.demo.datasets import write_worlds
from labelmerge.demo.experiment import FULL, SETTINGS, Banks, Workplace, embed, shard_worlds
from labelmerge.demo.worlds import HELD_OUT, TRAINING, unseen_labels
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.loading.batch import Batch
from labelmerge.methods.method import TrainingData
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.train.config import load_config
from labelmerge.train.loop import train


class Drawn:
    """The texts of each of N columns, padded to the most that one has, and whether there is one: ``[N, T, C]``."""

    def __init__(self, data: TrainingData, words: Bank) -> None:
        columns = data.columns
        alone = columns.positive & (columns.positive.sum(axis=1, keepdims=True) == 1)
        texts = []
        for column, own in enumerate(alone.T):
            rows = np.flatnonzero(own if own.any() else columns.positive[:, column])
            names = words.rows([columns.labels[row] for row in rows])
            vectors = np.concatenate([columns.label_vectors[rows], names])
            texts.append(np.unique(vectors, axis=0))
        self._texts = torch.zeros(len(texts), max(map(len, texts)), texts[0].shape[1])
        self._there = torch.zeros(self._texts.shape[:2])
        for column, vectors in enumerate(texts):
            self._texts[column, : len(vectors)] = torch.from_numpy(vectors)
            self._there[column, : len(vectors)] = 1

    def vectors(self, seed: int, step: int) -> Tensor:
        """The columns' vectors in one step, float32 ``[N, C]``: mixtures drawn evenly from all there can be."""
        generator = torch.Generator().manual_seed(seed * 100_003 + step)
        weights = torch.empty_like(self._there).exponential_(generator=generator) * self._there
        return torch.nn.functional.normalize((weights[:, :, None] * self._texts).sum(1), dim=1)


def draw_texts(words: Bank, seed: int) -> None:
    """Make every SSIW run of this process draw its columns' vectors."""
    prepare, forward = SSIWLearner.prepare, SSIWLearner.forward
    drawn: list[Drawn] = []

    def prepared(self: SSIWLearner, data: TrainingData) -> None:
        prepare(self, data)
        drawn.append(Drawn(data, words))

    def drawing(self: SSIWLearner, batch: Batch) -> Tensor:
        self._labels = replace(self._labels, vectors=drawn[-1].vectors(seed, batch.step))
        return forward(self, batch)

    SSIWLearner.prepare, SSIWLearner.forward = prepared, drawing  # type: ignore[method-assign]


def measure(root: Path, seed: int, way: str, steps: int) -> tuple[float, float, float]:
    """Seen, unseen, and unseen without *coach*."""
    place, banks = Workplace(root / f"world-{seed}"), Banks(root / f"world-{seed}")
    if not place.shards.is_dir():
        write_worlds(place.worlds, FULL.images, seed)
        embed(banks, place.worlds)
        shard_worlds(place)
    if way == "drawn":
        draw_texts(Bank.load(banks.of("words")), seed)
    common = {"steps": steps, "batch_size": FULL.batch_size, "crop": FULL.crop, "seed": seed, "warmup": 20}
    config = load_config("tiny", overrides={**SETTINGS, **common, "checkpoint_every": steps})
    run = place.run(f"{way}-{steps}")
    train([place.shards / dataset for dataset in TRAINING], banks.of("concepts"), run, config=config, device="cpu")
    results = evaluate(run, [place.shards / d for d in HELD_OUT], None, run / "results.json", device="cpu")
    found = [(each.data.dataset, row) for each in results.sets for row in each.to_json()["classes"]]
    new = [(row["name"], row["iou"]) for dataset, row in found if row["name"] in unseen_labels(dataset)]
    known = [row["iou"] for dataset, row in found if row["name"] not in unseen_labels(dataset)]
    seen = [iou for iou in known if iou is not None]
    ious = {name: iou or 0.0 for name, iou in new}
    return mean(seen), mean(ious.values()), mean(iou for name, iou in ious.items() if name != "coach")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 8], metavar="N")
    parser.add_argument("--steps", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| vectors | world | seen | unseen | without *coach* |\n|---|---|---|---|---|")
    for way in ("fixed", "drawn"):  # in this order: what draws stays
        for seed in options.seeds:
            figures = measure(options.out, seed, way, options.steps)
            print(f"| {way} | {seed} | {' | '.join(f'{100 * each:.1f}' for each in figures)} |", flush=True)


if __name__ == "__main__":
    main()
