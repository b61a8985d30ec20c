"""Does a list's company tell which of its meanings a word has? Words of several meanings, each in a short list.

    python tests/benchmarks/bench_homonyms.py [--errors]

`homonyms.csv` has lists of bare names (`company`), one ambiguous word more (`name`), and the concepts of which the word
must be one or lie within one (`meant`); ``?`` is a meaning for which the graph had no concept when it was judged: right
is then to say so (unsure, or a note), or a new concept. One person wrote lists and meanings before the merge had seen
any. Samples 1 and 2 were looked at while the rule was made (2 showed that parts of a building are no company for a
factory), sample 3 after everything was done; ``label_descriptions/homonyms.csv`` was written after 1 and 2 by the same
person, so that the words of these are known there. Sample 4 was written after words for parts of bodies, animals and
vehicles had been added. Samples 3 and 4 were blind when they were first measured; docs/merge.md has those figures.

- *right*: as judged; *told*: not so, but unsure or with a note; *wrong*: not so, and nothing says it.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.merge.attachment import UNSURE, Attachment, _Words, attach
from labelmerge.merge.concepts import ConceptGraph
from labelmerge.merge.lexicon import lexicon

ROWS = Path(__file__).with_name("homonyms.csv")


def grade(meant: list[str], own: Attachment, graph: ConceptGraph) -> str:
    """*right*, *told* or *wrong*."""
    told = own.confidence < UNSURE or "may" in own.note
    real = [concept for concept in meant if concept in graph]
    if real and all(concept in graph.below(*real) for concept in own.concepts):
        return "right"
    if "?" in meant and (told or all(concept not in lexicon().graph for concept in own.concepts)):
        return "right"
    return "told" if told else "wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", action="store_true", help="show what is not right")
    options = parser.parse_args()
    with ROWS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for number, row in enumerate(rows):
            names = [*row["company"].split(";"), row["name"]]
            (folder / f"list{number}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        lists = [str(folder / f"list{number}.txt") for number in range(len(rows))]
        embed_labels(find_datasets(lists), folder / "bank", encoder="offline")
        bank = Bank.load(folder / "bank")
        after = attach(bank, concept_encoder(bank))
        with patch.object(_Words, "by_company", lambda words, row: None):
            before = attach(bank, concept_encoder(bank))
    place = {(key[0], name): row for row, (key, name) in enumerate(zip(bank.keys, bank.names, strict=True))}
    print("| sample | words | | right | told | wrong |\n|---|---|---|---|---|---|")
    for sample in sorted({row["sample"] for row in rows}):
        for title, (graph, found) in (("without", before), ("with", after)):
            count: Counter[str] = Counter()
            for number, row in enumerate(rows):
                if row["sample"] == sample:
                    own = found[place[f"list{number}", row["name"]]]
                    how = grade(row["meant"].split(";"), own, graph)
                    count[how] += 1
                    if options.errors and title == "with" and how != "right":
                        said = f"{'; '.join(own.concepts)} {own.confidence} {own.note}"
                        print(f"{how}: {row['company']} | {row['name']} | {row['meant']}: {said}")
            print(f"| {sample} | {count.total()} | {title} | {count['right']} | {count['told']} | {count['wrong']} |")


if __name__ == "__main__":
    main()
