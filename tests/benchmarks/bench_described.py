"""Are a user's descriptions understood? Class lists with wide classes, and judged what each takes in and leaves out.

    python tests/benchmarks/bench_described.py [--errors SAMPLE …]

`described.csv` has six class lists that were invented for this, of streets, an office robot, a drone over farmland, a
kitchen, a harbour and a building site. A third of the descriptions list what the class takes in, the others define it,
or say what it leaves out. For each class a person who knew nothing of the merge wrote down things that it takes in, and
things that a naive reader might wrongly take in. The lists of sample 1 were looked at while this was made; those of
sample 2 only measured. Each thing is a list of its own with that one name; it is *found* where the class's set contains
its set, and *wrong* where a thing that is left out has anything in common with the class.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.merge.attachment import UNSURE, attach
from labelmerge.merge.concepts import sets_of
from labelmerge.merge.lexicon import kept_in

LISTS = Path(__file__).with_name("described.csv")
Rows = list[dict[str, str]]


def read_lists() -> Rows:
    """A row for each class."""
    with LISTS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def things_of(row: dict[str, str], column: str) -> list[str]:
    """The things of a cell."""
    return [thing for thing in row[column].split(";") if thing]


def make_bank(rows: Rows, folder: Path) -> Bank:
    """The lists with their descriptions, and each thing as a list of one name, as `labelmerge merge` embeds them."""
    files = []
    for name in dict.fromkeys(row["list"] for row in rows):
        files.append(folder / f"{name}.csv")
        with files[-1].open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["name", "description"])
            table.writerows([row["name"], row["description"]] for row in rows if row["list"] == name)
    things = dict.fromkeys(thing for row in rows for column in ("contains", "not") for thing in things_of(row, column))
    for number, thing in enumerate(things):
        files.append(folder / f"thing{number}.txt")
        files[-1].write_text(thing + "\n", encoding="utf-8")
    embed_labels(find_datasets([str(file) for file in files]), folder / "bank", encoder="offline")
    return Bank.load(folder / "bank")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", nargs="*", default=(), metavar="SAMPLE", help="show what is wrong of these")
    options = parser.parse_args()
    rows = read_lists()
    with tempfile.TemporaryDirectory() as scratch:
        bank = make_bank(rows, Path(scratch))
    graph, found = attach(bank, concept_encoder(bank))
    sets = sets_of(
        [own.concepts for own in found],
        [dataset for dataset, _ in bank.keys],
        graph,
        kept_in(bank),
        [own.but for own in found],
    )
    place = {(key[0], name): row for row, (key, name) in enumerate(zip(bank.keys, bank.names, strict=True))}
    thing = {name: row for (dataset, name), row in place.items() if dataset.startswith("thing")}
    print("| sample | classes | things: found | in part | missed | missed, class sure | left out: wrong |")
    print("|---" * 7 + "|")
    for sample in ("1", "2"):
        counts = dict.fromkeys(("found", "part", "missed", "sure", "inside", "wrong", "outside"), 0)
        own_rows = [row for row in rows if row["sample"] == sample]
        for row in own_rows:
            label = place[row["list"], row["name"]]
            faults = []
            for name in things_of(row, "contains"):
                both = int((sets[label] & sets[thing[name]]).sum())
                kind = "found" if both == int(sets[thing[name]].sum()) else "part" if both else "missed"
                counts["inside"] += 1
                counts[kind] += 1
                counts["sure"] += kind == "missed" and found[label].confidence >= UNSURE
                faults += [f"{kind}: {name} ({'; '.join(found[thing[name]].concepts)})"] * (kind != "found")
            for name in things_of(row, "not"):
                counts["outside"] += 1
                if (sets[label] & sets[thing[name]]).any():
                    counts["wrong"] += 1
                    faults.append(f"wrong: {name} ({'; '.join(found[thing[name]].concepts)})")
            if faults and sample in options.errors:
                said = found[label]
                but = f" but {'; '.join(said.but)}" if said.but else ""
                print(f"{row['list']} {row['name']}: {row['description']}")
                print(f"    {'; '.join(said.concepts)}{but} {said.confidence} {said.note} | {', '.join(faults)}")
        cells = [f"{counts[kind]} of {counts['inside']}" for kind in ("found", "part", "missed", "sure")]
        print(f"| {sample} | {len(own_rows)} | {' | '.join(cells)} | {counts['wrong']} of {counts['outside']} |")


if __name__ == "__main__":
    main()
