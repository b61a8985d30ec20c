"""What do unlabelled images, and other datasets' labels, add to a few labels? mIoU on the demo's toy worlds, on images
that training did not see, with equal steps and equally many labelled samples per step in every row.

    python tests/benchmarks/bench_few_labels.py semi --out bench-out [--seeds 3] [--labels 10] [--rows NAME …]
    python tests/benchmarks/bench_few_labels.py pretrain --out bench-out [--seeds 3] [--labels 10 100]

`semi`: Cityscapes and IDD, few labels of each, the other images without theirs; the mean of both sets. `pretrain`:
ADE20K, COCO panoptic and Vistas first, then Cityscapes with few labels. Prints Markdown with the mean and standard
deviation over the worlds; what is in --out already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

from labelmerge.demo.datasets import write_world
from labelmerge.demo.experiment import SETTINGS
from labelmerge.demo.results import Mean
from labelmerge.demo.worlds import WORLDS, recipe_of
from labelmerge.embed.embed import embed_labels
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.files import write_json
from labelmerge.sharding.shard import shard
from labelmerge.train.config import load_config
from labelmerge.train.loop import train

STREETS = ("cityscapes", "idd")
OTHERS = ("ade20k", "coco_panoptic", "mapillary")
IMAGES, FRESH = 200, 60  # of each dataset
SHARE = 4  # samples of each dataset in a step
JOINT = {"method": "usss", "cross_weight": 0.0, "within_weight": 0.0, "decoder_features": 128}
USSS = {**JOINT, "cross_weight": 1.0, "within_weight": 1.0}
SSIW = {"method": "ssiw"}
CONSISTENCY = {**SSIW, "unlabelled": "consistency", "unlabelled_warmup": 100, "confidence": 0.9}

SEMI: dict[str, dict[str, Any]] = {
    "supervised only, each alone": {},
    "joint, a decoder each (α = β = 0)": JOINT,
    "usss, centroids": {**USSS, "supervised": "alone"},
    "usss, centroids, K = 3": {**USSS, "supervised": "alone", "centroids_per_label": 3},
    "usss, centroids, α = β = 0.1": {**USSS, "supervised": "alone", "cross_weight": 0.1, "within_weight": 0.1},
    "usss, centroids that move, λ = 0.9": {
        **USSS,
        "supervised": "alone",
        "centroid_decay": 0.9,
        "centroid_steps": 25,
    },
    "usss, random": {**USSS, "label_embeddings": "random"},
    "usss, random, balanced": {**USSS, "label_embeddings": "random", "balance_weight": 1.0},
    "usss, bank": {**USSS, "label_embeddings": "bank"},
    "ssiw, joint": SSIW,
    "ssiw, entropy": {**SSIW, "unlabelled": "entropy", "unlabelled_weight": 0.1},
    "ssiw, consistency": CONSISTENCY,
}
MDP = {"method": "mdp", "mix": "none", "sparse_weight": 0.0}
PRETRAINING: dict[str, dict[str, Any] | None] = {
    "scratch": None,
    "cross-entropy on the union of labels": {**SSIW, "merge": "naive", "negatives": "all"},
    "ssiw as it is (concepts)": SSIW,
    "mdp, pixel to pixel": {**MDP, "contrast": "pixel"},
    "mdp, prototypes": MDP,
    "mdp, region mix": {**MDP, "mix": "region"},
    "mdp, region and pixel mix, sparse": {**MDP, "mix": "both", "sparse_weight": 0.1},
    "mdp, prototypes of concepts": {**MDP, "prototypes": "concept"},
}


class World:
    """One world's data and runs."""

    def __init__(self, root: Path, seed: int, steps: int) -> None:
        self.root, self.seed, self.steps = root / f"world-{seed}", seed, steps
        self.bank = self.root

    def draw(self, datasets: tuple[str, ...]) -> None:
        """Draw, shard and embed what is not there yet."""
        self.bank = self.root / f"bank-{len(datasets)}"
        for part, count, first in (("train", IMAGES, 0), ("fresh", FRESH, IMAGES)):
            for dataset in datasets:
                folder = self.root / part / "worlds" / dataset
                if (self.root / part / "shards" / dataset).is_dir():
                    continue
                write_world(dataset, folder, count, self.seed, first=first)
                recipe = recipe_of(dataset, folder)
                shard(recipe, folder, WORLDS[dataset].split, self.root / part / "shards")
        embed_labels([recipe_of(dataset, self.root) for dataset in datasets], self.bank, encoder="offline")

    def shards(self, datasets: tuple[str, ...], part: str = "train") -> list[Path]:
        return [self.root / part / "shards" / dataset for dataset in datasets]

    def train(self, name: str, datasets: tuple[str, ...], settings: dict[str, Any], sources: int) -> Path:
        out = self.root / "runs" / f"{name}-{self.steps}".replace(" ", "-").replace(",", "")
        common = {"steps": self.steps, "batch_size": SHARE * sources, "crop": 64, "seed": self.seed, "warmup": 20}
        own = {"labels": "all", "checkpoint_every": self.steps, **common, **settings}
        config = load_config(
            "tiny", overrides={**SETTINGS, **own} if own.get("method") == "ssiw" else {"lr": 3e-3, **own}
        )
        began = time.process_time()
        train(self.shards(datasets), self.bank, out, config=config, device="cpu")
        if not (out / "seconds.json").is_file():
            write_json(out / "seconds.json", time.process_time() - began)
        return out

    def miou(self, run: Path, dataset: str) -> float:
        results = evaluate(run, self.shards((dataset,), "fresh"), None, run / f"{dataset}.json", device="cpu")
        (only,) = results.sets
        return float(only.metrics.miou)

    def semi(self, name: str, labels: int) -> dict[str, float]:
        hidden = {"labelled": dict.fromkeys(STREETS, labels)}
        alone = {
            dataset: self.train(f"alone-{dataset}-{labels}", (dataset,), {**JOINT, "labelled": {dataset: labels}}, 1)
            for dataset in STREETS
        }
        settings = {**SEMI[name], **hidden}
        if settings.get("supervised"):
            settings["supervised"] = [str(run) for run in alone.values()]
        unlabelled = settings.get("cross_weight") or settings.get("unlabelled")
        runs = alone
        if SEMI[name]:
            runs = dict.fromkeys(STREETS, self.train(f"{name}-{labels}", STREETS, settings, 4 if unlabelled else 2))
        spent = sum(json.loads((run / "seconds.json").read_text()) for run in set(runs.values()))
        return {**{dataset: self.miou(run, dataset) for dataset, run in runs.items()}, "seconds": spent}

    def pretrain(self, name: str, labels: int) -> dict[str, float]:
        first: dict[str, Any] = {}
        spent = 0.0
        settings = PRETRAINING[name]
        if settings is not None:
            run = self.train(f"pretrain-{name}", OTHERS, settings, 3)
            first = {"init": str(run), "encoder_only": True}
            spent = json.loads((run / "seconds.json").read_text())
        tuned = {**JOINT, "labelled": {"cityscapes": labels}, **first}
        tuned_run = self.train(f"tuned-{name}-{labels}", ("cityscapes",), tuned, 1)
        return {"cityscapes": self.miou(tuned_run, "cityscapes"), "seconds": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("semi", "pretrain"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many worlds; default 3")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first world; default 0")
    parser.add_argument("--steps", type=int, default=250, metavar="N", help="of each run; default 250")
    parser.add_argument("--labels", type=int, nargs="+", default=[10], metavar="N")
    parser.add_argument("--rows", nargs="+", metavar="NAME")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    rows = options.rows or list(SEMI if options.what == "semi" else PRETRAINING)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(options.first, options.first + options.seeds):
        world = World(options.out, seed, options.steps)
        world.draw(STREETS if options.what == "semi" else (*OTHERS, "cityscapes"))
        for labels in options.labels:
            for name in rows:
                kept = world.root / "rows" / f"{options.what}-{name}-{labels}-{options.steps}.json".replace(" ", "-")
                if not kept.is_file():
                    kept.parent.mkdir(exist_ok=True)
                    write_json(kept, getattr(world, options.what)(name, labels))
                figures = json.loads(kept.read_text())
                found.setdefault((name, labels), []).append(figures)
                print(f"world {seed}, {name}, N = {labels}: {figures}", flush=True)
    print("\n| mIoU, % | N | each | mean | CPU s |\n|---|---|---|---|---|")
    for (name, labels), worlds in found.items():
        sets = [key for key in worlds[0] if key != "seconds"]
        each = " / ".join(f"{100 * sum(w[key] for w in worlds) / len(worlds):.1f}" for key in sets)
        mean = Mean.of([sum(w[key] for key in sets) / len(sets) for w in worlds]).percent()
        print(f"| {name} | {labels} | {each} | {mean} | {sum(w['seconds'] for w in worlds) / len(worlds):.0f} |")


if __name__ == "__main__":
    main()
