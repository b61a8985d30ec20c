"""Does the text help? Bare words, bare prompts and descriptions against what public facts say of pairs of labels.

    python tests/benchmarks/bench_words.py [--encoder SPEC]... [--descriptions DIR] [--worst N]
    python tests/benchmarks/bench_words.py --page docs/words.md --picture docs/words.png    # measure the page anew

`word_pairs.csv` beside this file holds the pairs; docs/words.md says how they were chosen and what the figures mean.
Prints Markdown. An encoder that can't be had is one line that says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from word_scores import Pair, average_precision, best_f1, f1, read_pairs  # type: ignore[import-not-found]  # the file beside this one

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.encoders.encoders import CLIP, TextEncoder, load_encoder
from labelmerge.errors import EncoderError
from labelmerge.files import write_text
from labelmerge.labels import LabelKey
from labelmerge.merge.merges import by_concepts, by_similarity
from labelmerge.merge.report import merge_report
from labelmerge.names import PROMPT_TEMPLATE, prompt_name, sentence, word

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float32]

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
RESAMPLES = 1000
CONCEPTS = "concepts"
ROUNDING = 1e-5  # vectors are float32: cosines this close are taken as equal, as `by_similarity` does


@dataclass(frozen=True)
class Form:
    """One way to turn a label into text."""

    title: str
    template: str
    text: Callable[[str, str], str]


FORMS = (
    Form("word", WORD_TEMPLATE, lambda name, description: word(name)),
    Form("bare prompt", "An image of {name}.", lambda name, description: f"An image of {prompt_name(name)}."),
    Form("description alone", "{description}", lambda name, description: description or word(name)),
    Form("name, prompt and description", PROMPT_TEMPLATE, sentence),
)


def nearest_is_same(query: Vector, labels: Mapping[LabelKey, Vector], dataset: str, same: set[LabelKey]) -> float:
    """Whether the label of `dataset` that is nearest to `query` is in `same`; among equally near ones, the share."""
    keys = [key for key in labels if key[0] == dataset]
    cosines = np.array([labels[key] @ query for key in keys])
    nearest = np.flatnonzero(cosines >= cosines.max() - ROUNDING)
    return float(np.mean([keys[i] in same for i in nearest]))


# --- one encoder, one form ---


@dataclass(frozen=True)
class Merge:
    """What `by_similarity` makes of the pairs at its default threshold.

    Attributes:
        threshold: that default.
        grouped: whether a pair is in one group.
    """

    threshold: float
    grouped: Bools


@dataclass(frozen=True)
class Measured:
    """What one form of text does with the pairs.

    Attributes:
        title: of the form.
        cosines: of each pair, to five digits; by concepts the intersection over union of their sets.
        retrieved: of each query, whether the nearest label is a same one, 0 to 1.
        identical: whether the two labels of a pair have the very same text.
        merge: None where the two labels of a pair are not in one bank.
        found: the relation of each pair; () where the form knows none.
    """

    title: str
    cosines: Floats
    retrieved: Floats
    identical: Bools
    merge: Merge | None
    found: tuple[str, ...] = ()


def queries(pairs: Sequence[Pair]) -> dict[tuple[LabelKey, str], tuple[set[LabelKey], int]]:
    """Every label with a same one in another dataset: those labels, and the number of the first pair that says so."""
    found: dict[tuple[LabelKey, str], tuple[set[LabelKey], int]] = {}
    for number, pair in enumerate(pairs):
        if pair.relation == "same":
            for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
                found.setdefault((one, other[0]), (set(), number))[0].add(other)
    return found


def make_bank(encoder: TextEncoder, form: Form, datasets: Sequence[str], descriptions: Path | None) -> Bank:
    """A bank of all labels of `datasets` with the texts of `form`."""
    labels = {
        (dataset, row.index): row
        for dataset in datasets
        for row in load_descriptions(load_recipe(dataset), descriptions)
    }
    keys = sorted(labels)
    texts = [form.text(labels[key].name, labels[key].description) for key in keys]
    distinct = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    rows = [row_of[text] for text in texts]
    tokens, truncated = encoder.count_tokens(distinct)
    return Bank(
        encoder=encoder.spec,
        identity=encoder.identity,
        prompt=form.template,
        keys=keys,
        names=[labels[key].name for key in keys],
        texts=texts,
        vectors=encoder.encode(distinct)[rows],
        tokens=[tokens[row] for row in rows],
        truncated=[truncated[row] for row in rows],
    )


def measure(title: str, bank: Bank, other: Bank, pairs: Sequence[Pair]) -> Measured:
    """Compare a label of a pair as `bank` has it with its partner as `other` has it, and the other way round.

    With ``bank is other`` that is the cosine. Else it is the mean of two, and no two labels can share a text.
    """
    a, b = bank.positions(pair.a for pair in pairs), bank.positions(pair.b for pair in pairs)
    forth, back = (
        np.sum(bank.vectors[one].astype(np.float64) * other.vectors[partner], axis=1)
        for one, partner in ((a, b), (b, a))
    )
    vectors, others = (dict(zip(one.keys, one.vectors, strict=True)) for one in (bank, other))
    merge = None
    if bank is other:
        report = merge_report(bank, by_similarity(bank))
        group_of = {member.key: number for number, group in enumerate(report.groups) for member in group.members}
        grouped = np.array([group_of.get(pair.a, -1) == group_of.get(pair.b, -2) for pair in pairs])
        merge = Merge(report.threshold, grouped)
    return Measured(
        title=title,
        cosines=np.round((forth + back) / 2, 5),
        retrieved=np.array(
            [
                nearest_is_same(vectors[key], others, dataset, same)
                for (key, dataset), (same, _) in queries(pairs).items()
            ]
        ),
        identical=np.array([bank.texts[i] == other.texts[j] for i, j in zip(a, b, strict=True)]),
        merge=merge,
    )


def measure_all(encoder: TextEncoder, pairs: Sequence[Pair], descriptions: Path | None) -> list[Measured]:
    """Every form, in the order of `FORMS`; and sentences on one side with bare prompts on the other."""
    datasets = sorted({key[0] for pair in pairs for key in (pair.a, pair.b)})
    banks = [make_bank(encoder, form, datasets, descriptions) for form in FORMS]
    measured = [measure(form.title, bank, bank, pairs) for form, bank in zip(FORMS, banks, strict=True)]
    against = measure("sentence against bare prompt", banks[-1], banks[1], pairs)
    return [*measured, against, measure_concepts(banks[-1], pairs)]


def measure_concepts(bank: Bank, pairs: Sequence[Pair]) -> Measured:
    """The merge by concepts: how much the sets of two labels have in common (`iou` in relations.csv)."""
    taxonomy = by_concepts(bank)
    sets = taxonomy.sets[[taxonomy.rows[key] for key in bank.keys]].astype(np.float64)
    shared, sizes = sets @ sets.T, sets.sum(axis=1)
    iou = shared / (sizes[:, None] + sizes[None] - shared)
    row_of = {key: row for row, key in enumerate(bank.keys)}
    retrieved = []
    for (key, dataset), (same, _) in queries(pairs).items():
        there = [other for other in bank.keys if other[0] == dataset]
        scores = iou[row_of[key], [row_of[other] for other in there]]
        nearest = np.flatnonzero(scores == scores.max())
        retrieved.append(float(np.mean([there[place] in same for place in nearest])))
    a, b = bank.positions(pair.a for pair in pairs), bank.positions(pair.b for pair in pairs)
    return Measured(
        title=CONCEPTS,
        cosines=np.round(iou[a, b], 5),
        retrieved=np.array(retrieved),
        identical=np.array([bank.texts[i] == bank.texts[j] for i, j in zip(a, b, strict=True)]),
        merge=Merge(1.0, iou[a, b] == 1),
        found=tuple(_relation(shared[i, j], sizes[i], sizes[j]) for i, j in zip(a, b, strict=True)),
    )


def _relation(shared: float, a: float, b: float) -> str:
    if not shared:
        return "unrelated"
    if shared == a == b:
        return "same"
    return "contains" if shared == b else "part of" if shared == a else "overlaps"


# --- the report ---

Statistic = Callable[[Floats, Floats], float]


def statistics(measured: Measured, pairs: Sequence[Pair]) -> dict[str, Statistic | None]:
    """The columns of the table, each a function of the weights of the pairs and of the queries."""
    relation = np.array([pair.relation for pair in pairs])
    positive = relation == "same"
    renamed = np.array([prompt_name(pair.name_a) != prompt_name(pair.name_b) for pair in pairs])
    merge = measured.merge

    def ap(subset: Bools, weights: Floats, _: Floats) -> float:
        return float(average_precision(measured.cosines[subset], positive[subset], weights[subset]))

    def chosen(which: Bools, weights: Floats, _: Floats) -> float:
        return float(f1(which, positive, weights))

    return {
        "R@1": lambda _, weights: float(np.average(measured.retrieved, weights=weights)),
        "AP": partial(ap, np.ones(len(pairs), bool)),
        "AP without *contains*": partial(ap, relation != "contains"),
        "AP where names differ": partial(ap, renamed),
        "best F1": lambda weights, _: best_f1(measured.cosines, positive, weights)[0],
        "F1 at default": partial(chosen, measured.cosines >= merge.threshold - ROUNDING) if merge else None,
        "F1 of `merge`": partial(chosen, merge.grouped) if merge else None,
    }


def resamples(pairs: Sequence[Pair], seed: int = 0) -> list[tuple[Floats, Floats]]:
    """Bootstrap weights of the pairs and of the queries.

    Drawn with replacement are not single pairs but the names of first labels: pairs about one word are not independent.
    """
    cluster = np.unique([prompt_name(pair.name_a) for pair in pairs], return_inverse=True)[1]
    query_cluster = cluster[[number for _, number in queries(pairs).values()]]
    count = cluster.max() + 1
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(count, size=count), minlength=count).astype(float) for _ in range(RESAMPLES))
    return [(weights[cluster], weights[query_cluster]) for weights in drawn]


def interval(values: Floats) -> str:
    """The middle 95 % of the resamples, which follow the value itself."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


def row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def report(results: Sequence[Measured], pairs: Sequence[Pair], worst: int) -> str:
    """What was measured, in Markdown; `worst` errors of each sort."""
    say = (lines := list[str]()).append

    def head(*cells: str) -> None:
        say(f"{row(*cells)}\n{row(*['---'] * len(cells))}")

    draws = resamples(pairs)
    ones = np.ones(len(pairs)), np.ones(len(results[0].retrieved))
    values: list[dict[str, Floats]] = []  # of each form and column: the value, then those of the resamples
    for measured in results:
        columns = statistics(measured, pairs)
        values.append({name: np.array([of(*each) for each in (ones, *draws)]) for name, of in columns.items() if of})

    head("text", *(names := list(values[0])))
    for measured, each in zip(results, values, strict=True):
        say(row(measured.title, *(f"{each[n][0]:.3f} ({interval(each[n])})" if n in each else "" for n in names)))
    for measured, each in list(zip(results, values, strict=True))[1:]:
        gains = {name: each[name] - values[0][name] for name in each}
        cells = (f"{gains[n][0]:+.3f} ({interval(gains[n])})" if n in gains else "" for n in names)
        say(row(f"{measured.title}, minus word", *cells))

    say("\nShare of the pairs at or above the default threshold; *same* should be high, the others low.\n")
    kinds = list(dict.fromkeys((pair.relation, pair.kind) for pair in pairs))
    head("text", "threshold", *(f"{relation}, {kind}" for relation, kind in kinds))
    for measured in results:
        if measured.merge and not measured.found:
            above = measured.cosines >= measured.merge.threshold - ROUNDING
            shares = (np.mean(above[[(pair.relation, pair.kind) == kind for pair in pairs]]) for kind in kinds)
            say(row(measured.title, f"{measured.merge.threshold:.3f}", *(f"{share:.1%}" for share in shares)))

    relations = ("same", "contains", "different")
    for measured in results:
        if measured.found:
            kinds_found = ("same", "contains", "part of", "overlaps", "unrelated")
            say("\nWhat the sets of concepts say of the pairs; *contains* is the first label containing the second.\n")
            head("the pair is", *kinds_found)
            for relation in ("same", "contains", "different"):
                of = [found for found, pair in zip(measured.found, pairs, strict=True) if pair.relation == relation]
                say(row(f"{relation} ({len(of)})", *(of.count(kind) for kind in kinds_found)))

    say("\nPairs whose two labels have one text.\n")
    head("text", *(f"{relation} ({sum(p.relation == relation for p in pairs)})" for relation in relations))
    for measured in results:
        if measured.found:
            continue
        counts = (np.sum(measured.identical[[pair.relation == each for pair in pairs]]) for each in relations)
        say(row(measured.title, *counts))

    words, sentences = results[0], results[len(FORMS) - 1]
    titles = {
        "same": "same, yet far apart",
        "different": "different, yet near",
        "contains": "one in the other, yet near",
    }
    for relation, title in titles.items():
        sign = 1 if relation == "same" else -1
        chosen = [i for i in np.argsort(sign * sentences.cosines, kind="stable") if pairs[i].relation == relation]
        say(f"\nWorst of the {sentences.title}: {title}\n")
        head("cosine", "of the words", "pair")
        for i in chosen[:worst]:
            say(row(f"{sentences.cosines[i]:.2f}", f"{words.cosines[i]:.2f}", pairs[i]))
    return "\n".join(lines)


def draw(path: Path, results: Sequence[Measured], pairs: Sequence[Pair]) -> None:
    """The cosines of the pairs: of bare words, of sentences, and of sentences against bare prompts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = (results[0], results[len(FORMS) - 1], results[-1])
    figure, axes = plt.subplots(len(shown), 1, figsize=(8, 6.4), sharex=True, layout="constrained")
    bins = np.linspace(min(measured.cosines.min() for measured in shown), 1, 51)
    shades = {"same": "#0072b2", "contains": "#e69f00", "different": "#999999"}
    for axis, measured in zip(axes, shown, strict=True):
        parts = [measured.cosines[[pair.relation == relation for pair in pairs]] for relation in shades]
        axis.hist(parts, bins=bins, stacked=True, color=list(shades.values()), label=list(shades))
        if measured.merge:
            axis.axvline(
                measured.merge.threshold, color="black", linestyle="--", linewidth=1, label="default threshold"
            )
        axis.set_title(measured.title, loc="left", fontsize=10)
        axis.set_ylabel("pairs")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    axes[-1].set_xlabel("cosine of the two labels")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", metavar="SPEC", help=f"default: offline, and {CLIP}")
    parser.add_argument("--descriptions", type=Path, metavar="DIR", help="its <dataset>.csv replace the shipped ones")
    parser.add_argument("--worst", type=int, default=15, help="how many errors to list of each sort; default 15")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the cosines of the first encoder")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help=f"replace what it has between {BEGIN} and {END}")
    options = parser.parse_args()
    if options.descriptions is not None and not options.descriptions.is_dir():
        parser.error(f"no such folder: {options.descriptions}")
    if options.page is not None:
        before, begin, rest = options.page.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            parser.error(f"{options.page} has no {BEGIN} and {END}")
    pairs = read_pairs()
    picture, parts = options.picture, []
    for spec in options.encoder or ["offline", CLIP]:
        try:
            encoder = load_encoder(spec)
        except EncoderError:
            parts.append(f"### {spec}\n\nNot measured: its weights were not available here.")
            continue
        results = measure_all(encoder, pairs, options.descriptions)
        parts.append(f"### {spec}\n\n{report(results, pairs, options.worst)}")
        if picture is not None:
            draw(picture, results, pairs)
            picture = None
    print("\n\n".join(parts))
    if options.page is not None:
        write_text(options.page, "".join((before, BEGIN, "\n", "\n\n".join(parts), "\n", END, after)))


if __name__ == "__main__":
    main()
