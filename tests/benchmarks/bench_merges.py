"""Which merge, and which negatives? mIoU on the demo's toy worlds, with equal data and steps in every row: zero-shot on
the two test sets, and (own) the mean over the seven training sets with masks, on images that training did not see.

    python tests/benchmarks/bench_merges.py --out bench-out [--seeds 3] [--steps 500] [--rows NAME …]

Prints a row as soon as it is measured, then Markdown with the mean and standard deviation over the worlds. Each run
takes about a minute on one core at 500 steps; what is in --out already is not run again.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.demo.datasets import write_worlds
from labelmerge.demo.experiment import FULL, SETTINGS, Banks, Workplace, embed, shard_worlds
from labelmerge.demo.results import METRICS, Mean, scores_of
from labelmerge.demo.worlds import HELD_OUT, TRAINING
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.files import write_json
from labelmerge.methods.meaning import run_columns
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views
from labelmerge.shardset.shardset import ShardSet
from labelmerge.train.config import load_config
from labelmerge.train.loop import train

WITH_MASKS = [d for d in TRAINING if d not in ("openimages", "objects365")]
COLUMNS = (*METRICS, "own")
FRESH = 30  # images of each training dataset that no run has seen

# name: (the bank, the settings)
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "words, all compete": ("words", {"merge": "text", "negatives": "all"}),
    "sentences, all compete (the paper)": ("sentences", {"merge": "text", "negatives": "all"}),
    "sentences, own labels": ("sentences", {"merge": "text", "negatives": "own"}),
    "sentences, all but related": ("sentences", {"merge": "text", "negatives": "unrelated", "foreign_weight": 1.0}),
    "concepts, all compete (NLL+)": ("sentences", {"merge": "concepts", "negatives": "all"}),
    "concepts, own labels": ("sentences", {"merge": "concepts", "negatives": "own"}),
    **{
        f"concepts, graded {weight:g}": (
            "sentences",
            {"merge": "concepts", "negatives": "graded", "foreign_weight": weight},
        )
        for weight in (1.0, 0.3, 0.1)
    },
}


def own_miou(run: Path, shards: Path) -> float:
    """On images of a training dataset, with those of its labels that the run was trained with: toys lack the others."""
    trained = load_trained(run)
    assert trained.checkpoint.bank_folder is not None
    bank = Bank.load(trained.checkpoint.bank_folder)
    keys = [key for key in bank.keys if key[0] == shards.name]
    rows = bank.positions(keys)
    labels = LabelList(
        tuple(bank.names[row] for row in rows), tuple(bank.texts[row] for row in rows), tuple(keys), bank.vectors[rows]
    )
    if (columns := run_columns(trained.checkpoint, trained.learner)) is not None:
        labels = columns.ask(labels, [(key,) for key in keys], bank)
    predictor = trained.predictor(labels, Views())
    (split,) = (path.parent for path in shards.glob("*/manifest.json"))
    shard_set = ShardSet.open(split)
    place = np.full(65536, -1)
    place[[index for _, index in keys]] = np.arange(len(keys))
    counts = np.zeros((len(keys), len(keys)), dtype=np.int64)
    for number in range(len(shard_set)):
        picture = shard_set.fetch(number).picture()
        assert picture.mask is not None
        truth = place[picture.mask]
        chosen = predictor.classes(picture.image)
        np.add.at(counts, (truth[truth >= 0], chosen[truth >= 0]), 1)
    right, either = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((right[either > 0] / either[either > 0]).mean())


def measure(root: Path, seed: int, name: str, steps: int) -> dict[str, float]:
    """The figures of one row in one world."""
    import torch

    torch.set_num_threads(1)
    place, banks = Workplace(root / f"world-{seed}"), Banks(root / f"world-{seed}")
    kept = place.root / "rows" / f"{name.replace(' ', '-')}-{steps}.json"
    if kept.is_file():
        figures: dict[str, float] = json.loads(kept.read_text())
        return figures
    fresh = Workplace(place.root / "fresh")
    if not fresh.shards.is_dir():
        write_worlds(place.worlds, FULL.images, seed)
        embed(banks, place.worlds)
        shard_worlds(place)
        write_worlds(fresh.worlds, FRESH, seed, first=FULL.images)
        shard_worlds(fresh)
    bank, settings = ROWS[name]
    common = {"steps": steps, "batch_size": FULL.batch_size, "crop": FULL.crop, "seed": seed, "warmup": 20}
    config = load_config("tiny", overrides={**SETTINGS, **common, "checkpoint_every": steps, **settings})
    out = place.root / "runs" / f"{name.replace(' ', '-')}-{steps}"
    run = train([place.shards / d for d in TRAINING], banks.root / "banks" / bank, out, config=config, device="cpu")
    results = evaluate(out, [place.shards / d for d in HELD_OUT], None, out / "results.json", device="cpu")
    figures = scores_of(name, results.to_json(), run.seconds).metrics()
    figures["own"] = sum(own_miou(out, fresh.shards / d) for d in WITH_MASKS) / len(WITH_MASKS)
    kept.parent.mkdir(exist_ok=True)
    write_json(kept, figures)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many worlds; default 3")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="of each run; default 500")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.rows}
    for seed in range(options.seeds):
        for name in options.rows:
            found[name].append(measure(options.out, seed, name, options.steps))
            last = ", ".join(f"{metric} {100 * found[name][-1][metric]:.1f}" for metric in COLUMNS)
            print(f"world {seed}, {name}: {last}", flush=True)
    print(f"\n| mIoU, % | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for name, worlds in found.items():
        cells = (Mean.of([figures[metric] for figures in worlds]).percent() for metric in COLUMNS)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
