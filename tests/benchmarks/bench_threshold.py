"""Which threshold finds the labels that mean the same? The evidence behind `calibrated_threshold`.

    python tests/benchmarks/bench_threshold.py --encoder offline

The descriptions that ship were written so that labels of one meaning share one description, whatever they are called:
*couch* and *sofa*, *refridgerator* and *fridge*. That is a human answer to "do these two labels mean the same?" for
every pair of labels of different datasets. Pairs with equal texts are left out, because they are one vector at any
threshold: what remains are synonyms, and everything else. For bare words and for sentences, the table shows what the
groups of `by_similarity` come to at thresholds that are quantiles of the cosines of labels that one dataset tells
apart.

Sentences of synonyms share their description here, so they lie nearer than independently written ones would.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_descriptions
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.merge.clustering import calibrated_threshold, own_cosines
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.report import merge_report

QUANTILES = (0.99, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 1.0)
DATASETS = (
    "ade20k bdd100k camvid cityscapes coco_panoptic idd mapillary nyuv2 objects365 openimages pascal_context scannet "
    "sunrgbd voc wilddash"
)


def evidence(bank: Bank, meaning: list[str]) -> None:
    """Print a row for each threshold."""
    owner = np.unique([dataset for dataset, _ in bank.keys], return_inverse=True)[1]
    text = np.unique(bank.texts, return_inverse=True)[1]
    meant = np.unique(meaning, return_inverse=True)[1]
    asked = np.triu((owner[:, None] != owner[None]) & (text[:, None] != text[None]), 1)
    same = (meant[:, None] == meant[None])[asked]
    place = {key: row for row, key in enumerate(bank.keys)}
    own = own_cosines(bank)
    print(f"{same.sum()} pairs mean the same, {len(same) - same.sum()} don't; {len(own)} pairs of one dataset's own")
    print(f"{'quantile':>9}{'threshold':>11}{'precision':>11}{'recall':>8}{'F1':>7}")
    for quantile in QUANTILES:
        threshold = float(np.quantile(own, quantile))
        group = np.arange(len(bank))
        for found in merge_report(bank, by_similarity(bank, threshold)).groups:
            rows = [place[member.key] for member in found.members]
            group[rows] = rows[0]
        joined = (group[:, None] == group[None])[asked]
        right = int((joined & same).sum())
        precision, recall = right / max(int(joined.sum()), 1), right / max(int(same.sum()), 1)
        f1 = 2 * right / max(int(joined.sum() + same.sum()), 1)
        chosen = "  <- the default" if abs(threshold - calibrated_threshold(bank)) < 1e-9 else ""
        print(f"{quantile:9}{threshold:11.3f}{precision:11.2f}{recall:8.2f}{f1:7.2f}{chosen}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="offline", help="default offline")
    parser.add_argument("--datasets", default=DATASETS, help=f"default {DATASETS}")
    options = parser.parse_args()
    recipes = find_datasets(options.datasets.split())
    descriptions = {(r.name, row.index): row.description for r in recipes for row in load_descriptions(r)}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("words", "sentences"):
            embed_labels(recipes, Path(folder) / kind, encoder=options.encoder, words=kind == "words")
            bank = Bank.load(Path(folder) / kind)
            print(f"\n{kind}, {bank.encoder}")
            evidence(bank, [descriptions[key] or f"nothing is said of {key}" for key in bank.keys])


if __name__ == "__main__":
    main()
