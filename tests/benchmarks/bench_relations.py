"""Are the relations right? Pairs of shipped labels that were judged before the merge's answer was seen.

    python tests/benchmarks/bench_relations.py                  # the shipped attachments
    python tests/benchmarks/bench_relations.py --names          # also: all datasets as lists of bare names (minutes)

`judged_pairs.csv` has the pairs. Each was drawn at random from a stratum: by the merge's answer of that day, by how near
the texts are, and by whether a box set is in it. It was shown as two datasets, names and descriptions, in shuffled
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_attachment import NAMES_ONLY, kinds_of

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.catalog import dataset_names
from labelmerge.embed.embed import embed_labels, find_datasets
from labelmerge.labels import LabelKey
from labelmerge.merge.attachment import attach
from labelmerge.merge.lexicon import lexicon

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
    return _answers(rows, keys, kinds_of([known.labels[key][1] for key in keys], [key[0] for key in keys], known.graph))


def from_names(rows: Rows, bank: Bank, encode: object, without: Iterable[str]) -> Codes:
    """What the merge says of each pair if every dataset were a stranger's list of bare names: int64 [N]."""
    keys = [(f"stranger_{dataset}", index) for dataset, index in bank.keys]
    graph, found = attach(replace(bank, keys=keys, version="", folder=None), encode, without)  # type: ignore[arg-type]
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


def table(rows: Rows, answers: Callable[[Rows], Codes], column: str, title: str) -> None:
    print(f"\n{title}\n\n| sample | pairs | {' | '.join(TYPES)} | related at all | all types, weighted |")
    print(f"|---|---|{'---|' * (len(TYPES) + 2)}")
    groups: list[tuple[str, Callable[[dict[str, str]], bool]]] = [
        ("1", lambda row: row["sample"] == "1"),
        ("2", lambda row: row["sample"] == "2"),
        ("2, mask sets", lambda row: row["sample"] == "2" and row["stratum"].startswith("mask")),
        ("2, less voc *background*", lambda row: row["sample"] == "2" and ("voc", 0) not in keys_of(row)),
    ]
    for name, chosen in groups:
        own = [row for row in rows if chosen(row)]
        truth, answer = codes(own, column), answers(own)
        one, heavy = np.ones(len(own)), np.array([int(row["size"]) / int(row["taken"]) for row in own])
        cells = [figures(truth, answer, one, which) for which in TYPES.values()]
        cells.append(figures((truth > 0).astype(int), (answer > 0).astype(int), one, (1,)))
        cells.append(figures(truth, answer, heavy, TYPES["all types"]))
        print(f"| {name} | {len(own)} | {' | '.join(f'{p:.2f} / {r:.2f} / **{f:.3f}**' for p, r, f in cells)} |")


def confusion(rows: Rows, answers: Callable[[Rows], Codes], column: str) -> None:
    truth, answer = codes(rows, column), answers(rows)
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
    then: Callable[[Rows], Codes] = lambda own: codes(own, "answer")  # noqa: E731
    print("Precision / recall / F1.")
    for column in ("judged", "adjudicated"):
        table(rows, then, column, f"What the merge said when the pairs were judged, against *{column}*")
        table(rows, shipped, column, f"What it says now, against *{column}*")
    print("\nSample 2 when it was judged:")
    confusion([row for row in rows if row["sample"] == "2"], then, "judged")
    if not options.names:
        return
    datasets = sorted({dataset for row in rows for dataset, _ in keys_of(row)})
    with tempfile.TemporaryDirectory() as scratch:
        embed_labels(find_datasets(datasets), Path(scratch) / "names", encoder=options.encoder, prompts=[NAMES_ONLY])
        bank = Bank.load(Path(scratch) / "names")
        encode = concept_encoder(bank)
        for title, without in (
            ("without these datasets' own rows", datasets),
            ("with the graph alone", dataset_names()),
        ):
            named = from_names(rows, bank, encode, without)
            place = {id(row): number for number, row in enumerate(rows)}
            mine: Callable[[Rows], Codes] = lambda own, named=named: named[[place[id(row)] for row in own]]  # type: ignore[misc]  # noqa: E731
            for column in ("judged", "adjudicated"):
                table(rows, mine, column, f"From bare names, {title}, against *{column}*")


if __name__ == "__main__":
    main()
