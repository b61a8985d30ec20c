"""What do unlabelled images, and other datasets' labels, add to a few labels? mIoU on the demo's toy worlds, on images
that training did not see, with equal steps and equally many labelled samples per step in every row.

    python tests/benchmarks/bench_few_labels.py semi --out bench-out [--seeds 3] [--labels 10] [--rows NAME …]
    python tests/benchmarks/bench_few_labels.py pretrain --out bench-out [--seeds 3] [--labels 10 100]
    python tests/benchmarks/bench_few_labels.py pretrain --out bench-out --preset lite
    python tests/benchmarks/bench_few_labels.py semi --out bench-out --table --figures figures --labels 10 50 100

`semi`: Cityscapes and IDD, few labels of each, the other images without theirs; the mean of both sets. `pretrain`:
ADE20K, COCO panoptic and Vistas first, then Cityscapes with few labels. With `--preset lite` every row has that network
and its rates, and there are rows from ImageNet; no norms are frozen, since from scratch they have nothing to keep.
Prints Markdown with the mean and standard deviation over the worlds; what is in --out already is not run again. Each
row of each world has a file of its figures in --figures, so several machines can share the work: `--table` prints what
is there from all of them, and runs nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean as mean
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
WHOLE = {**MDP, "mix": "both", "sparse_weight": 0.1}
IMAGENET = "ImageNet"
UNION = {**SSIW, "merge": "naive", "negatives": "all"}
PRETRAINING: dict[str, dict[str, Any] | None] = {
    "scratch": None,
    "cross-entropy on the union of labels": UNION,
    "ssiw as it is (concepts)": SSIW,
    "mdp, pixel to pixel": {**MDP, "contrast": "pixel"},
    "mdp, prototypes": MDP,
    "mdp, region mix": {**MDP, "mix": "region"},
    "mdp, pixel mix": {**MDP, "mix": "pixel"},
    "mdp, region and pixel mix": {**MDP, "mix": "both"},
    "mdp, sparse coding": {**MDP, "sparse_weight": 0.1},
    "mdp, region and pixel mix, sparse": WHOLE,
    # 0.999 forgets within 1000 steps: 6 % of the paper's 100 epochs of VOC in batches of 64, as 15 are of 250
    "mdp, region and pixel mix, sparse, momentum 0.93": {**WHOLE, "key_momentum": 0.93},
    "mdp, prototypes, momentum 0.93": {**MDP, "key_momentum": 0.93},
    "mdp, prototypes of concepts": {**MDP, "prototypes": "concept"},
    "mdp, region and pixel mix, sparse, of concepts": {**WHOLE, "prototypes": "concept"},
}
# What only a network with ImageNet weights has: those alone, and the other datasets' labels after them.
PRETRAINING_LITE: dict[str, dict[str, Any] | None] = {
    IMAGENET: None,
    "ImageNet, cross-entropy on the union of labels": {**UNION, "pretrained": "imagenet"},
    "ImageNet, mdp, region and pixel mix, sparse": {**WHOLE, "pretrained": "imagenet"},
}


def plain(name: str) -> str:
    """A file's name of a row's."""
    return re.sub("[^a-z0-9]+", "-", name.lower())


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Processes that share a folder make what they share one after another."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class World:
    """One world's data and runs."""

    def __init__(self, root: Path, seed: int, steps: int, device: str, preset: str) -> None:
        self.root, self.seed, self.steps, self.device = root / f"world-{seed}", seed, steps, device
        self.preset = preset
        self.bank = self.root

    def draw(self, datasets: tuple[str, ...], fresh: tuple[str, ...]) -> None:
        """Draw, shard and embed what is not there yet; of `fresh` also the images that runs are measured on."""
        self.bank = self.root / f"bank-{len(datasets)}"
        with in_turn(self.root / "draw.lock"):
            for part, count, first in (("train", IMAGES, 0), ("fresh", FRESH, IMAGES)):
                for dataset in datasets if part == "train" else fresh:
                    folder = self.root / part / "worlds" / dataset
                    if (self.root / part / "shards" / dataset).is_dir():
                        continue
                    write_world(dataset, folder, count, self.seed, first=first)
                    recipe = recipe_of(dataset, folder)
                    shard(recipe, folder, WORLDS[dataset].split, self.root / part / "shards")
            if not self.bank.is_dir():
                embed_labels([recipe_of(dataset, self.root) for dataset in datasets], self.bank, encoder="offline")

    def shards(self, datasets: tuple[str, ...], part: str = "train") -> list[Path]:
        return [self.root / part / "shards" / dataset for dataset in datasets]

    def train(self, name: str, datasets: tuple[str, ...], settings: dict[str, Any], sources: int) -> Path:
        out = self.root / "runs" / self.file(name)
        common = {"steps": self.steps, "batch_size": SHARE * sources, "crop": 64, "seed": self.seed, "warmup": 20}
        own = {"labels": "all", "checkpoint_every": self.steps, "bf16": False, **common}
        if self.preset == "tiny":
            own |= SETTINGS if settings["method"] == "ssiw" else {"lr": SETTINGS["lr"]}
        else:
            own |= {"pretrained": "", "freeze": "nothing", "short_edge": 0}
        config = load_config(self.preset, overrides={**own, **settings})
        with in_turn(self.root / "runs" / f"{out.name}.lock"):
            began = time.process_time(), time.perf_counter()
            train(self.shards(datasets), self.bank, out, config=config, device=self.device)
            if not (out / "seconds.json").is_file():
                write_json(out / "seconds.json", [time.process_time() - began[0], time.perf_counter() - began[1]])
        return out

    def file(self, name: str) -> str:
        """Under which name a run, or a row's figures, are kept."""
        return plain(f"{name}-{self.steps}" if self.preset == "tiny" else f"{name}-{self.steps}-{self.preset}")

    def miou(self, run: Path, dataset: str) -> float:
        results = evaluate(run, self.shards((dataset,), "fresh"), None, run / f"{dataset}.json", device=self.device)
        (only,) = results.sets
        return float(only.metrics.miou)

    def semi(self, name: str, labels: int) -> dict[str, Any]:
        hidden = {"labelled": dict.fromkeys(STREETS, labels)}
        settings = {**SEMI[name], **hidden}
        alone = {}
        if not SEMI[name] or settings.get("supervised"):
            alone = {
                dataset: self.train(
                    f"alone-{dataset}-{labels}", (dataset,), {**JOINT, "labelled": {dataset: labels}}, 1
                )
                for dataset in STREETS
            }
        if settings.get("supervised"):
            settings["supervised"] = [str(run) for run in alone.values()]
        unlabelled = settings.get("cross_weight") or settings.get("unlabelled")
        runs = alone
        if SEMI[name]:
            runs = dict.fromkeys(STREETS, self.train(f"{name}-{labels}", STREETS, settings, 4 if unlabelled else 2))
        return self.figures(runs, set(runs.values()))

    def pretrain(self, name: str, labels: int) -> dict[str, Any]:
        first: dict[str, Any] = {}
        spent = []
        settings = {**PRETRAINING, **PRETRAINING_LITE}[name]
        if settings is not None:
            run = self.train(f"pretrain-{name}", OTHERS, settings, 3)
            first = {"init": str(run), "encoder_only": True}
            spent = [run]
        elif name == IMAGENET:
            first = {"pretrained": "imagenet"}
        tuned = {**JOINT, "labelled": {"cityscapes": labels}, **first}
        tuned_run = self.train(f"tuned-{name}-{labels}", ("cityscapes",), tuned, 1)
        return self.figures({"cityscapes": tuned_run}, spent)

    def figures(self, runs: dict[str, Path], spent: Iterable[Path]) -> dict[str, Any]:
        """mIoU of each dataset, and what the runs in `spent` took."""
        import torch

        seconds = [json.loads((run / "seconds.json").read_text()) for run in spent]
        gpu = torch.device(self.device).type == "cuda"
        return {
            "miou": {dataset: self.miou(run, dataset) for dataset, run in runs.items()},
            "cpu_seconds": sum(cpu for cpu, _ in seconds),
            "seconds": sum(wall for _, wall in seconds),
            "device": torch.cuda.get_device_name(self.device) if gpu else "cpu",
            "torch": torch.__version__,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("semi", "pretrain"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many worlds; default 3")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first world; default 0")
    parser.add_argument("--steps", type=int, default=250, metavar="N", help="of each run; default 250")
    parser.add_argument("--labels", type=int, nargs="+", default=[10], metavar="N")
    parser.add_argument("--rows", nargs="+", metavar="NAME")
    parser.add_argument("--preset", choices=("tiny", "lite"), default="tiny", help="the network; default tiny")
    parser.add_argument("--device", default="cpu", help="such as cuda; default cpu, on one thread")
    parser.add_argument("--figures", type=Path, nargs="+", metavar="DIR", help="rows' figures; new ones into the first")
    parser.add_argument("--table", action="store_true", help="print what there is, and run nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    lite = PRETRAINING_LITE if options.preset == "lite" else {}
    known = list(SEMI if options.what == "semi" else {**PRETRAINING, **lite})
    if unknown := [row for row in options.rows or [] if row not in known]:
        parser.error(f"no row is called {unknown[0]!r}; there are: {'; '.join(known)}")
    rows = options.rows or known
    folders = options.figures or [options.out]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for seed in range(options.first, options.first + options.seeds):
        world = World(options.out, seed, options.steps, options.device, options.preset)
        if not options.table:
            if options.what == "semi":
                world.draw(STREETS, fresh=STREETS)
            else:
                world.draw((*OTHERS, "cityscapes"), fresh=("cityscapes",))
        for labels in options.labels:
            for name in rows:
                file = world.file(f"{options.what}-{name}-{labels}") + ".json"
                places = [folder / f"world-{seed}" / "rows" / file for folder in folders]
                kept = next((place for place in places if place.is_file()), places[0])
                if not kept.is_file() and not options.table:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    write_json(kept, getattr(world, options.what)(name, labels))
                if kept.is_file():
                    figures = json.loads(kept.read_text())
                    found.setdefault((name, labels), []).append(figures)
                    print(f"world {seed}, {name}, N = {labels}: {figures}", flush=True)
    print("\n| mIoU, % | N | each set | each world | mean | CPU s |\n|---|---|---|---|---|---|")
    for (name, labels), worlds in found.items():
        sets = " / ".join(f"{100 * mean(w['miou'][key] for w in worlds):.1f}" for key in worlds[0]["miou"])
        means = [mean(w["miou"].values()) for w in worlds]
        each = " / ".join(f"{100 * value:.1f}" for value in means)
        seconds = mean(w["cpu_seconds"] for w in worlds)
        print(f"| {name} | {labels} | {sets} | {each} | {Mean.of(means).percent()} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
