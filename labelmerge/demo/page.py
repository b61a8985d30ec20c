"""From the demo's folders and figures to its page (`labelmerge.demo.report.Page`). Sentences follow the numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge import __version__
from labelmerge.bank.bank import Bank
from labelmerge.demo.experiment import Banks, Workplace
from labelmerge.demo.pictures import Viewer, dataset_card, prediction_rows, split_picture, unseen_cards
from labelmerge.demo.report import (
    Curve,
    CurveChart,
    LabelRow,
    Matrix,
    MergedLabel,
    MethodRow,
    Page,
    PairRow,
    png_uri,
)
from labelmerge.demo.results import MERGED, METRICS, ROW_NAMES, Mean, mean
from labelmerge.demo.worlds import HELD_OUT, TRAINING, WORLDS, taxonomies, unseen_labels
from labelmerge.labels import LabelKey
from labelmerge.merge.clustering import cosines_of, seriation
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.report import Group, Pair, merge_report
from labelmerge.names import prompt_name
from labelmerge.plot.similarity import COLOURS, PALEST
from labelmerge.progress import Track, no_track
from labelmerge.train.log import read_log

ABOUT = {
    "single": "Mean over models that were each trained on one dataset alone, with the sentences of its own labels.",
    "best": "The one of them that does best on the held-out sets, chosen by looking at them.",
    "naive": "All nine, every label of every dataset a class of its own. Held-out labels are found by their name.",
    "words": "All nine, every label the embedding of its bare name.",
    "sentences": "All nine, every label the embedding of a sentence that says what it means; equal sentences are one.",
    "concepts": "All nine, merged by concepts: labels that mean the same are one class, whatever their words, and a "
    "coarse label may be any of its parts.",
}
PAIRS: tuple[tuple[tuple[str, str], tuple[str, str], str], ...] = (
    (("cityscapes", "sidewalk"), ("coco_panoptic", "pavement-merged"), "two words, one thing"),
    (("cityscapes", "rider"), ("mapillary", "Bicyclist"), "two words, one thing"),
    (("sunrgbd", "sofa"), ("objects365", "Couch"), "two words, one thing"),
    (("cityscapes", "terrain"), ("idd", "non-drivable fallback"), "two words, one thing"),
    (("coco_panoptic", "mouse"), ("openimages", "Mouse"), "one word, two things: device and animal"),
    (("coco_panoptic", "counter"), ("ade20k", "counter"), "one word, two things: worktop and shop counter"),
    (("openimages", "Vehicle"), ("cityscapes", "car"), "a kind and one of its sorts"),
    (("idd", "animal"), ("coco_panoptic", "dog"), "a kind and one of its sorts"),
    (("cityscapes", "person"), ("cityscapes", "rider"), "told apart in one dataset, one in another"),
)

# From this cosine on, labels with different sentences are shown as nearly the same.
NEARLY_THE_SAME = 0.9
# A difference below this, in mIoU, is called none where there is only one world to judge by.
NOISE = 0.02


def make_page(result: Mapping[str, Any], place: Workplace, banks: Banks, track: Track = no_track) -> Page:
    """Everything the demo's page shows.

    Args:
        result: the content of demo.json.
        place: the world whose pictures are shown.
        banks: the label vectors.
        track: progress.
    """
    import torch

    torch.manual_seed(0)
    sentences, words = Bank.load(banks.of("sentences")), Bank.load(banks.of("words"))
    trained = sentences.for_datasets(TRAINING)
    report = merge_report(trained, by_similarity(trained, NEARLY_THE_SAME), threshold=NEARLY_THE_SAME)
    different = len(trained.columns()[0])
    rows = result["rows"]
    seeds = result["seeds"]
    words_page = Page(
        title="Nine datasets, one model, no relabelling",
        lead="Segmentation datasets disagree about words. Here nine toy datasets, in the official formats of nine real "
        "ones, are merged by what their labels mean: labels become concepts, concepts the embeddings of sentences, and "
        "one model learns from all of them at once.",
        hero=[(dataset, split_picture(place, dataset)) for dataset in TRAINING],
        tiles=[
            ("9", "training datasets: seven with masks, one with noisy partial masks, one with boxes"),
            (str(len(trained)), f"labels in nine taxonomies, {different} different sentences"),
        ],
        datasets=[dataset_card(place, dataset) for dataset in WORLDS],
        matrices=_matrices(trained, words),
        pairs=[_pair_row(pair, sentences, words) for pair in PAIRS],
        merged=_merged(report.groups),
        merged_about=f"{len(trained)} labels have {different} different sentences. Labels with the same sentence "
        "(1.00) have one vector. The others here are so near, "
        f"{NEARLY_THE_SAME} or more, that what one dataset teaches helps the other; the merge by concepts makes one "
        "class of those that mean the same.",
        kept_apart=_kept_apart(report.same_name),
        commands=_commands(place, trained=bool(rows)),
    )
    if not rows:
        return words_page
    shown = [score for world in result["worlds"] if world["seed"] == seeds[0] for score in world["scores"]]
    best = f"single/{result['best_single'][0]}"
    viewer = Viewer(place, banks, {"best": best, **{method: method for method in MERGED}})
    unseen = Mean.of(rows["concepts"]["unseen"])
    hidden = unseen_labels("village")
    worlds = "one toy world" if len(seeds) == 1 else f"{len(seeds)} toy worlds"
    return replace(
        words_page,
        tiles=[
            *words_page.tiles,
            (f"{Mean.of(rows['concepts']['seen']).percent()} %", "mIoU on held-out sets, labels that training has"),
            (f"{unseen.percent()} %", f"mIoU on {len(hidden)} labels that nobody drew"),
        ],
        verdict=verdict(rows),
        columns=[
            ("seen", "seen labels"),
            ("unseen", "unseen labels"),
            ("camvid", "camvid, all labels"),
            ("village", "village, all labels"),
            ("harmonic", "harmonic mean of the sets"),
        ],
        methods=[
            MethodRow(
                key,
                ROW_NAMES[key].capitalize(),
                ABOUT[key] + (f" Here: {', '.join(result['best_single'])}." if key == "best" else ""),
                {metric: Mean.of(rows[key][metric]) for metric in METRICS},
                featured=key == "concepts",
            )
            for key in rows
        ],
        bars=[("seen", "Labels that training has, % mIoU"), ("unseen", "Labels that no dataset has, % mIoU")],
        notes=[
            f"Seen labels: all {len(taxonomies()['camvid'])} of CamVid and "
            f"{len(taxonomies()['village']) - len(hidden)} of the village, by whatever name training has them. "
            f"Unseen labels: {', '.join(hidden)}. All labels of a set compete: a wolf may be called cow.",
            "The naive merge scores 0 on unseen labels because it cannot name them: a one-hot class exists only where "
            "training had a label of that name. For the same reason it misses seen labels that go by another name.",
            _where_from(result, "village", hidden),
            f"From {worlds}"
            + (
                ", so that small differences may be chance; `labelmerge demo --seeds 3` gives a spread."
                if len(seeds) == 1
                else f" (seeds {', '.join(map(str, seeds))}): mean ± standard deviation. Pictures are from the first."
            ),
        ],
        unseen=unseen_cards(viewer, shown, sentences, track),
        predictions=prediction_rows(viewer, track),
        charts=_charts(place, best, result["size"]["single"]),
        labels=_label_rows(result),
        protocol=_protocol(result, shown, sentences),
    )


def verdict(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """What the figures say, in plain words: one sentence for each comparison, whichever way it went.

    Args:
        rows: by row of the table and metric, one figure for each world.
    """
    lines = [
        _compare("On labels that training has, concepts", "words", rows["concepts"]["seen"], rows["words"]["seen"]),
        _compare(
            "On labels that training has, concepts", "sentences", rows["concepts"]["seen"], rows["sentences"]["seen"]
        ),
        _compare(
            "On labels that no dataset has, concepts", "words", rows["concepts"]["unseen"], rows["words"]["unseen"]
        ),
        _compare("On labels that training has, sentences", "words", rows["sentences"]["seen"], rows["words"]["seen"]),
        _compare(
            "On labels that no dataset has, sentences", "words", rows["sentences"]["unseen"], rows["words"]["unseen"]
        ),
        _compare(
            "Against one-hot classes, on labels that training has, concepts",
            "the naive merge",
            rows["concepts"]["seen"],
            rows["naive"]["seen"],
        ),
        _compare(
            "Against a single dataset, on labels that training has, all nine merged by concepts",
            "the best one",
            rows["concepts"]["seen"],
            rows["best"]["seen"],
        ),
    ]
    return lines


def _compare(who: str, other: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """One sentence. With several worlds the difference counts where it is twice its standard error or more."""
    a, b = Mean.of(ours), Mean.of(theirs)
    differences = np.subtract(ours, theirs)
    difference = float(differences.mean())
    figures = f"{a.percent()} % and {b.percent()} % mIoU"
    if len(differences) > 1:
        error = float(differences.std(ddof=1)) / len(differences) ** 0.5
        clear = abs(difference) >= max(2 * error, 1e-12)
        sign = f", ahead in {int((differences > 0).sum())} of {len(differences)} worlds"
    else:
        clear, sign = abs(difference) >= NOISE, ""
    if not clear:
        return f"{who} and {other} show no clear difference: {figures}{sign}."
    better = "beat" if difference > 0 else "do not beat"
    points = f"{100 * abs(difference):.1f} points {'more' if difference > 0 else 'less'}"
    return f"{who} {better} {other}: {figures}, {points}{sign}."


def _where_from(result: Mapping[str, Any], dataset: str, labels: Sequence[str]) -> str:
    """Which label the difference of sentences to words on `labels` owes most to, and what is left without it."""
    iou = {
        method: {name: float(np.mean(_ious(result, method, dataset, name) or [0.0])) for name in labels}
        for method in ("sentences", "words")
    }
    first = max(labels, key=lambda name: abs(iou["sentences"][name] - iou["words"][name]))
    rest = [100 * float(np.mean([iou[m][name] for name in labels if name != first])) for m in ("sentences", "words")]
    return (
        f"On unseen labels sentences and words differ most on {first}: {100 * iou['sentences'][first]:.0f} % and "
        f"{100 * iou['words'][first]:.0f} %. Without it they have {rest[0]:.1f} % and {rest[1]:.1f} % mIoU."
    )


def _matrices(trained: Bank, words: Bank) -> list[Matrix]:
    """The similarities of all different sentences and of the same labels' words, in one order."""
    first: dict[str, LabelKey] = {}
    for key, text in zip(trained.keys, trained.texts, strict=True):
        first.setdefault(text, key)
    sentences = trained.for_keys(first.values())
    order = seriation(sentences)
    names = [prompt_name(name) for name in sentences.names]
    labels = [
        name if names.count(name) == 1 else f"{name} ({key[0]})"
        for name, key in zip(names, sentences.keys, strict=True)
    ]
    shown = [labels[row] for row in order]
    panels = [("Words", words.for_keys(sentences.keys)), ("Sentences", sentences)]
    return [
        Matrix(title, shown, _heat(cosines_of(bank.vectors)[np.ix_(order, order)], title)) for title, bank in panels
    ]


def _heat(matrix: npt.NDArray[np.float32], title: str) -> str:
    """A PNG of one pixel for each cell, in the colours of `plot similarity`."""
    import matplotlib

    low = min(float(np.quantile(matrix, PALEST)), 0.99)
    colours = matplotlib.colormaps[COLOURS[title]](np.clip((matrix - low) / (1 - low), 0, 1), bytes=True)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours[:, :, :3])).save(out, "PNG", optimize=True)
    return png_uri(out.getvalue())


def _pair_row(pair: tuple[tuple[str, str], tuple[str, str], str], sentences: Bank, words: Bank) -> PairRow:
    keys = [_key_of(sentences, dataset, name) for dataset, name in pair[:2]]
    cosines = [float(bank.rows(keys[:1])[0] @ bank.rows(keys[1:])[0]) for bank in (words, sentences)]
    left, right = (f"{prompt_name(name)} ({dataset})" for dataset, name in pair[:2])
    return PairRow(left, right, pair[2], *cosines)


def _key_of(bank: Bank, dataset: str, name: str) -> LabelKey:
    return next(key for key, own in zip(bank.keys, bank.names, strict=True) if key[0] == dataset and own == name)


def _merged(groups: Sequence[Group]) -> list[MergedLabel]:
    out = []
    for group in groups:
        datasets: dict[str, list[str]] = {}
        for member in group.members:
            datasets.setdefault(prompt_name(member.name), []).append(member.dataset)
        members = [(name, ", ".join(where)) for name, where in sorted(datasets.items(), key=lambda item: -len(item[1]))]
        out.append(MergedLabel(members, group.lowest))
    return out


def _kept_apart(pairs: Sequence[Pair]) -> list[PairRow]:
    """One row for each pair of sentences: the datasets that share a sentence would say the same again."""
    rows: dict[tuple[str, str], PairRow] = {}
    for pair in pairs:
        left, right = (f"{prompt_name(side.name)} ({side.dataset})" for side in (pair.a, pair.b))
        rows.setdefault((pair.a.text, pair.b.text), PairRow(left, right, "", 1.0, pair.cosine))
    return list(rows.values())


def _charts(place: Workplace, best: str, single: Sequence[str]) -> list[CurveChart]:
    of: dict[str, list[str]] = {"single": [f"single/{dataset}" for dataset in single], "best": [best]}
    logs = {key: [read_log(place.run(method)) for method in methods] for key, methods in of.items()}
    logs |= {method: [read_log(place.run(method))] for method in MERGED}
    about = {
        "hd": ("Masks, L_HD", "cross-entropy over cosines, each pixel against all labels"),
        "ld": ("Noisy masks, L_LD", "the same without the 30 % largest losses of an image"),
        "wd": ("Boxes, L_WD", "distance from the box's mean embedding to its label's vector"),
    }
    charts = []
    for part, (title, what) in about.items():
        curves = []
        for key, runs in logs.items():
            losses: dict[float, list[float]] = {}  # by step, of the row's models
            for line in (line for log in runs for line in log if line["parts"].get(part) is not None):
                losses.setdefault(float(line["step"]), []).append(float(line["parts"][part]))
            if losses:
                curves.append(Curve(key, ROW_NAMES[key], [(step, mean(losses[step])) for step in sorted(losses)]))
        charts.append(CurveChart(title, what, curves))
    return charts


def _label_rows(result: Mapping[str, Any]) -> list[LabelRow]:
    """Mean IoU over the worlds of every held-out label, by the rows of the table."""
    rows = []
    for dataset in HELD_OUT:
        for name in taxonomies()[dataset]:
            figures = [_mean_iou(result, row, dataset, name) for row in result["rows"]]
            rows.append(LabelRow(dataset, name, name in unseen_labels(dataset), figures))
    return rows


def _mean_iou(result: Mapping[str, Any], row: str, dataset: str, name: str) -> str:
    values = _ious(result, row, dataset, name)
    return f"{100 * float(np.mean(values)):.0f}" if values else "–"


def _ious(result: Mapping[str, Any], row: str, dataset: str, name: str) -> list[float]:
    """The IoU of one label in one row of the table: a figure for each world and model."""
    values = []
    for world, best in zip(result["worlds"], result["best_single"], strict=True):
        wanted = f"single/{best}" if row == "best" else row
        for score in world["scores"]:
            if score["method"] == wanted or (row == "single" and score["method"].startswith("single/")):
                value = score["iou"][dataset].get(name)
                values += [] if value is None else [float(value)]
    return values


def _protocol(result: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], sentences: Bank) -> list[tuple[str, str]]:
    import torch

    size = result["size"]
    seconds = sum(score["seconds"] for score in scores)
    training = (
        f"{size['steps']} steps of {size['batch_size']} views of {size['crop']} × {size['crop']} pixels, every dataset "
        "with an equal share of each batch"
    )
    return [
        ("model", "tiny: a convolutional network of 0.3 million parameters, random initial weights"),
        ("training", training),
        ("losses", "L_HD, L_LD and L_WD of Yin et al. (IJCV 2024)"),
        (
            "what differs",
            "between rows: what is one class, its vector, and, for concepts, how much foreign classes compete",
        ),
        ("single datasets", ", ".join(size["single"])),
        ("encoder", f"{sentences.identity.get('model')}, {sentences.dim} dimensions"),
        ("data", f"{size['images']} images in each dataset"),
        ("evaluation", "whole images, one scale; each set by its own labels; IoU over the whole set"),
        ("worlds", f"seeds {', '.join(map(str, result['seeds']))}"),
        ("time", f"{seconds:.0f} s of training in the first world"),
        ("software", f"labelmerge {__version__}, torch {torch.__version__.partition('+')[0]}"),
    ]


def _commands(place: Workplace, trained: bool) -> list[tuple[str, str]]:
    here = place.root.name
    asking = [
        (
            "In this page's folder: ask the model that the pictures are from for labels of your own.",
            f"labelmerge predict {here}/worlds/village/images/test/*.jpg --checkpoint {here}/runs/concepts \\\n"
            '  --out masks --labels "sky; road; grass; person; coach = A large vehicle that carries many passengers"',
        ),
    ]
    return (asking if trained else []) + [
        (
            "With real data: each dataset becomes shards.",
            "labelmerge shard cityscapes --root /data/cityscapes --split train --out shards\n"
            "labelmerge shard camvid --root /data/CamVid --split test --out shards",
        ),
        ("Label vectors, with CLIP as in the paper.", "labelmerge embed cityscapes camvid --out bank"),
        (
            "One model for all of them, and how good it is on what it never saw.",
            "labelmerge train --shards shards --bank bank --out run --preset segformer-b5\n"
            "labelmerge eval --checkpoint run --shards shards/camvid --bank bank --out results.json",
        ),
    ]
