"""Are the relations right? Pairs of shipped labels that were judged before the merge's answer was seen.

    python tests/benchmarks/bench_relations.py                  # the shipped attachments
    python tests/benchmarks/bench_relations.py --names          # also: all datasets as lists of bare names (minutes)

`judged_pairs.csv` has the pairs. Each was drawn at random from a stratum: by the merge's answer of that day, by how
near the texts are, and by whether a box set is in it. It was shown as two datasets, names and descriptions, in shuffled
order, without the answer, and judged from the datasets' own definitions as two sets of pixels: those to which the
annotators of each would give the label. What makes up less than a few per cent of a label is left out of account.

- `judged`: the judgement as it was first made; `answer`: what the merge said then.
- `adjudicated`: the judgement after every disagreement was looked up in the datasets' documentation; `reason` says why.
- `sample`: 1 was used to find and mend errors of the concepts, 2 was drawn and judged after that, and measured before
  anything was mended because of it.
- `stratum`, `size`, `taken`: how many pairs the stratum has, and how many of them were drawn.

*raw* counts every drawn pair once; *weighted* counts it `size / taken` times, as if all pairs had been judged: a few
unlikely pairs then weigh as much as hundreds of others. A type is right if its direction is, too.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_attachment import NAMES_ONLY, kinds_of  # type: ignore[import-not-found]  # the script beside this one

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.catalog import dataset_names, load_recipe
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.labels import LabelKey
from labelmerge.merge.attachment import attach
from labelmerge.merge.lexicon import lexicon
from labelmerge.merge.nearness import Encode

PAIRS = Path(__file__).with_name("judged_pairs.csv")
RELATIONS = ("disjoint", "same", "contains", "part_of", "overlaps")
TYPES = {"same": (1,), "contains, part_of": (2, 3), "overlaps": (4,), "all types": (1, 2, 3, 4)}

Rows = list[dict[str, str]]
Codes = npt.NDArray[np.int64]
Figures = tuple[float, float, float]


def read_pairs(path: Path = PAIRS) -> Rows:
    """The judged pairs, in the order in which they were judged."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def keys_of(row: dict[str, str]) -> tuple[LabelKey, LabelKey]:
    return (row["a"], int(row["a_index"])), (row["b"], int(row["b_index"]))


def codes(rows: Rows, column: str) -> Codes:
    """A column of relations as places in RELATIONS: int64 [N]."""
    return np.array([RELATIONS.index(row[column]) for row in rows])


def shipped(rows: Rows) -> Codes:
    """What the shipped attachments say of each pair: int64 [N]."""
    known = lexicon()
    datasets = {dataset for row in rows for dataset, _ in keys_of(row)}
    keys = sorted(key for key in known.labels if key[0] in datasets)
    kept = {dataset: how for dataset in datasets if (how := load_recipe(dataset).kept) is not None}
    concepts = [known.labels[key][1] for key in keys]
    return _answers(rows, keys, kinds_of(concepts, [dataset for dataset, _ in keys], known.graph, kept))


def from_names(rows: Rows, bank: Bank, encode: Encode | None, without: Iterable[str]) -> Codes:
    """What the merge says of each pair if every dataset were a stranger's list of bare names: int64 [N]."""
    keys = [(f"stranger_{dataset}", index) for dataset, index in bank.keys]
    graph, found = attach(replace(bank, keys=keys, version="", folder=None), encode, without)
    return _answers(rows, bank.keys, kinds_of([own.concepts for own in found], [key[0] for key in keys], graph))


def _answers(rows: Rows, keys: Sequence[LabelKey], kinds: npt.NDArray[np.int8]) -> Codes:
    place = {key: row for row, key in enumerate(keys)}
    return np.array([kinds[place[a], place[b]] for a, b in map(keys_of, rows)], dtype=np.int64)


def figures(truth: Codes, answer: Codes, weight: npt.NDArray[np.float64], which: Sequence[int]) -> Figures:
    """Precision, recall and F1 of these relations."""
    said, meant = np.isin(answer, which), np.isin(truth, which)
    right = weight[said & (truth == answer)].sum()
    precision, recall = right / max(weight[said].sum(), 1e-9), right / max(weight[meant].sum(), 1e-9)
    return float(precision), float(recall), float(2 * precision * recall / max(precision + recall, 1e-9))


def table(rows: Rows, answer: Codes, column: str, title: str) -> None:
    """Print the figures of one list of answers, [N], against one column of judgements."""
    print(f"\n{title}\n\n| sample | pairs | {' | '.join(TYPES)} | related at all | all types, weighted |")
    print(f"|---|---|{'---|' * (len(TYPES) + 2)}")
    sample = np.array([int(row["sample"]) for row in rows])
    masks = np.array([row["stratum"].startswith("mask") for row in rows])
    background = np.array([("voc", 0) in keys_of(row) for row in rows])
    weight = np.array([int(row["size"]) / int(row["taken"]) for row in rows])
    truth, once = codes(rows, column), np.ones(len(rows))
    for name, own in (
        ("1", sample == 1),
        ("2", sample == 2),
        ("2, mask sets", (sample == 2) & masks),
        ("2, less voc *background*", (sample == 2) & ~background),
    ):
        cells = [figures(truth[own], answer[own], once[own], which) for which in TYPES.values()]
        cells.append(figures((truth > 0).astype(int)[own], (answer > 0).astype(int)[own], once[own], (1,)))
        cells.append(figures(truth[own], answer[own], weight[own], TYPES["all types"]))
        print(f"| {name} | {own.sum()} | {' | '.join(f'{p:.2f} / {r:.2f} / **{f:.3f}**' for p, r, f in cells)} |")


def confusion(truth: Codes, answer: Codes) -> None:
    print(f"\n| judged \\ answer | {' | '.join(RELATIONS)} |\n|---|{'---|' * len(RELATIONS)}")
    for code, name in enumerate(RELATIONS):
        cells = [str(int(((truth == code) & (answer == other)).sum())) for other in range(len(RELATIONS))]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help="also from names alone")
    parser.add_argument("--encoder", default="offline")
    options = parser.parse_args()
    rows = read_pairs()
    answers = {
        "What the merge said when the pairs were judged": codes(rows, "answer"),
        "What it says now": shipped(rows),
    }
    if options.names:
        datasets = sorted({dataset for row in rows for dataset, _ in keys_of(row)})
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "names"
            embed_labels(find_datasets(datasets), folder, encoder=options.encoder, prompts=[NAMES_ONLY])
            bank = Bank.load(folder)
            encode = concept_encoder(bank)
            answers["From bare names, with the other shipped datasets"] = from_names(rows, bank, encode, datasets)
            answers["From bare names, with the graph alone"] = from_names(rows, bank, encode, dataset_names())
    print("Precision / recall / F1.")
    for title, answer in answers.items():
        for column in ("judged", "adjudicated"):
            table(rows, answer, column, f"{title}, against *{column}*:")
    second = np.array([row["sample"] == "2" for row in rows])
    print("\nSample 2 when it was judged:")
    confusion(codes(rows, "judged")[second], codes(rows, "answer")[second])


if __name__ == "__main__":
    main()
