"""How well are labels that are not ours attached? Shipped datasets, treated as strangers, against their curated rows.

    python tests/benchmarks/bench_attachment.py --encoder offline

Each dataset in turn is a stranger: renamed, with its own curated rows removed (`one`), with those of its relatives
removed as well (`family`: nobody has learned from Cityscapes what BDD100K means); then all of them at once, with what
the graph and the other shipped datasets know (`all`), and with the graph alone (`graph`). Names only, and names with
descriptions. What is compared are the relations (same, contains, part_of, overlaps, with their direction) between the
stranger's labels and those of the other main sets, with the relations of the curated attachments.

Descriptions were written so that labels of one meaning share one text. A stranger who copies a shipped description is
known by it, which says little about texts that others write; strangers' descriptions therefore lack their full stop
here, and yet they are kinder in this measure than in life. The last table shows how often attachments of each
confidence have exactly the curated concepts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import concept_encoder
from labelmerge.catalog import Kept, dataset_names
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.merge.attachment import Attachment, attach
from labelmerge.merge.concepts import sets_of
from labelmerge.merge.lexicon import lexicon
from labelmerge.merge.nearness import Encode

MAIN = (
    "ade20k bdd100k camvid cityscapes coco_panoptic idd mapillary nyuv2 pascal_context scannet sunrgbd voc wilddash2"
).split()
FAMILIES = (
    {"cityscapes", "cityscapes_coarse", "bdd100k", "kitti", "wilddash", "wilddash2", "idd", "idd_level3"},
    {"ade20k", "ade20k_full"},
    {"mapillary", "mapillary_v2"},
    {"sunrgbd", "nyuv2", "scannet"},
    {"camvid", "camvid32"},
    {"voc", "pascal_context", "pascal_context_459"},
)
NAMES_ONLY = "{name}: An image of {name}."
BINS = (0.0, 0.45, 0.5, 0.65, 0.75, 0.85, 0.9, 1.01)

Kinds = npt.NDArray[np.int8]


def kinds_of(
    concepts: Sequence[tuple[str, ...]],
    datasets: Sequence[str],
    graph: object,
    kept: Mapping[str, Kept] = MappingProxyType({}),
) -> Kinds:
    """The relation of every two labels, 0 for none: int8 [N, N]."""
    sets = sets_of(concepts, datasets, graph, kept).astype(np.float32)  # type: ignore[arg-type]
    shared, sizes = sets @ sets.T, sets.sum(axis=1)
    inside, around, some = shared == sizes[:, None], shared == sizes[None], shared > 0
    return np.select([some & inside & around, some & around, some & inside, some], [1, 2, 3, 4]).astype(np.int8)


def measure(
    bank: Bank, encode: Encode | None, strangers: set[str], without: Iterable[str]
) -> tuple[float, float, float, float, list[tuple[Attachment, bool]]]:
    """Precision, recall, F1 of typed relations, F1 of being related at all; attachments, and whether they are right."""
    keys = [(f"stranger_{dataset}" if dataset in strangers else dataset, index) for dataset, index in bank.keys]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    described = bank.described
    renamed = replace(
        bank,
        keys=[keys[row] for row in order],
        names=[bank.names[row] for row in order],
        texts=[
            bank.texts[row].removesuffix(".") if described[row] and bank.keys[row][0] in strangers else bank.texts[row]
            for row in order
        ],
        vectors=bank.vectors[order],
        version="",
        folder=None,
    )
    graph, found = attach(renamed, encode, without)
    datasets = [dataset for dataset, _ in renamed.keys]
    known = lexicon()
    truth_concepts = [known.labels[bank.keys[row]][1] for row in order]
    got = kinds_of([own.concepts for own in found], datasets, graph)
    truth = kinds_of(truth_concepts, datasets, known.graph)
    owner = np.unique(datasets, return_inverse=True)[1]
    strange = np.array([dataset.startswith("stranger_") for dataset in datasets])
    asked = np.triu((owner[:, None] != owner[None]) & (strange[:, None] | strange[None]), 1)
    got, truth = got[asked], truth[asked]
    right, mine, all_ = int(((got == truth) & (got > 0)).sum()), int((got > 0).sum()), int((truth > 0).sum())
    related = 2 * int(((got > 0) & (truth > 0)).sum()) / max(mine + all_, 1)
    pairs = [
        (own, set(own.concepts) == set(concepts))
        for own, concepts, stranger in zip(found, truth_concepts, strange.tolist(), strict=True)
        if stranger
    ]
    return right / max(mine, 1), right / max(all_, 1), 2 * right / max(mine + all_, 1), related, pairs


def settings(name: str) -> list[tuple[str, set[str], set[str]]]:
    """(row, strangers, what is unknown) of each measurement."""
    if name in ("one", "family"):
        relatives: Callable[[str], set[str]] = lambda dataset: set().union(*(f for f in FAMILIES if dataset in f))  # noqa: E731
        return [(d, {d}, {d} if name == "one" else {d} | relatives(d)) for d in MAIN]
    return [(name, set(MAIN), set(MAIN) if name == "all" else set(dataset_names()))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--banks", type=Path, help="a folder to keep the banks in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.banks or Path(scratch)
        recipes = find_datasets(["all"])
        embed_labels(recipes, folder / "texts", encoder=options.encoder)
        embed_labels(recipes, folder / "names", encoder=options.encoder, prompts=[NAMES_ONLY])
        banks = {kind: Bank.load(folder / kind) for kind in ("names", "texts")}
        encoders = {kind: concept_encoder(bank) for kind, bank in banks.items()}
        sure: list[tuple[Attachment, bool]] = []
        print("| | dataset | names | names, encoder | texts | texts, encoder |\n|---|---|---|---|---|---|")
        for setting in ("one", "family", "all", "graph"):
            means: dict[int, list[float]] = {}
            for row, strangers, without in settings(setting):
                cells = []
                for column, (kind, ask) in enumerate(
                    (("names", False), ("names", True), ("texts", False), ("texts", True))
                ):
                    bank = banks[kind].for_datasets(MAIN)
                    p, r, f1, _, pairs = measure(bank, encoders[kind] if ask else None, strangers, without)
                    cells.append(f"**{f1:.3f}** ({p:.2f} / {r:.2f})")
                    means.setdefault(column, []).append(f1)
                    sure += pairs
                print(f"| {setting} | {row} | {' | '.join(cells)} |", flush=True)
            print(f"| {setting} | *mean* | {' | '.join(f'**{np.mean(own):.3f}**' for own in means.values())} |")
    print("\n| confidence | attachments | exactly the curated concepts |\n|---|---|---|")
    for low, high in zip(BINS, BINS[1:], strict=False):
        own = [right for found, right in sure if low <= found.confidence < high]
        if own:
            print(f"| {low:.2f} to {high:.2f} | {len(own)} | {np.mean(own):.2f} |")


if __name__ == "__main__":
    main()
