"""The verb `demo`: draw the toy worlds, run the experiment on them, write the page."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from labelmerge.demo.datasets import write_worlds
from labelmerge.demo.experiment import FULL, Banks, Size, Workplace, embed, shard_worlds, train_all
from labelmerge.demo.page import make_page
from labelmerge.demo.photograph import Photograph, photograph_card, segment_photograph
from labelmerge.demo.report import write_page
from labelmerge.demo.results import MERGED, METRICS, SINGLE, Scores, mean
from labelmerge.errors import OutputError
from labelmerge.files import output_faults, write_json, write_text
from labelmerge.progress import Track, no_track

FORMAT = "labelmerge-demo/1"
RESULT, PAGE, MARKER = "demo.json", "demo.html", ".labelmerge-demo"
LABELS, MERGE_PAGE, SIMILARITY = "labels", "merge.html", "similarity.png"

_log = logging.getLogger(__name__)


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    seeds: int = 1,
    size: Size = FULL,
    training: bool = True,
    track: Track = no_track,
) -> dict[str, Any]:
    """Run the whole demo and write its page; returns the content of demo.json.

    What the labels mean, a merge page and a picture of their similarity, is there within the first half minute.

    Args:
        out: a new folder, or that of an earlier demo, whose content is replaced.
        seed: of the first world and its models.
        seeds: how many worlds; the others have the seeds that follow.
        size: `FULL` or `QUICK`, or anything else.
        training: also train and measure models; without, the page shows the datasets and their words alone.
        track: progress of every stage.

    Raises:
        OutputError: `out` holds something other than a demo, or can't be written.
    """
    claim(out)
    banks = Banks(out)
    worlds: list[tuple[int, list[Scores]]] = []
    photograph: Photograph | None = None
    for number in range(seed, seed + seeds):
        place = Workplace(out / f"seed-{number}")
        write_worlds(place.worlds, size.images, number, track)
        if number == seed:
            embed(banks, place.worlds, track)
            show_labels(banks, out / LABELS, track)
            _log.info("the first pictures are ready: %s and %s", out / LABELS / MERGE_PAGE, out / LABELS / SIMILARITY)
        shard_worlds(place, track)
        scores: list[Scores] = []
        if training:
            last = size.photograph and number == seed + seeds - 1
            aside = partial(segment_photograph, out / "photograph") if last else None
            scores, photograph = train_all(place, banks, size, number, track, aside)
        worlds.append((number, scores))
    result = summarise(worlds, size) if training else _untrained([number for number, _ in worlds], size)
    write_json(out / RESULT, result)
    page = make_page(result, Workplace(out / f"seed-{seed}"), banks, track)
    write_page(out / PAGE, replace(page, photograph=photograph_card(photograph) if photograph else None))
    return result


def show_labels(banks: Banks, out: Path, track: Track = no_track) -> None:
    """What `labelmerge merge` makes of the toy datasets' labels, and their similarity as a picture."""
    from labelmerge.bank.bank import Bank
    from labelmerge.merge.merge import write_merge
    from labelmerge.merge.merges import by_concepts
    from labelmerge.merge.report import merge_report
    from labelmerge.plot.merge_page.page import write_merge_page
    from labelmerge.plot.similarity import plot_similarity

    bank, words = Bank.load(banks.of("sentences")), Bank.load(banks.of("words"))
    taxonomy = by_concepts(bank)
    report = merge_report(bank, taxonomy)
    write_merge(report, taxonomy, bank, out)
    write_merge_page(report, taxonomy, bank, out / MERGE_PAGE, track=track)
    plot_similarity(bank, out / SIMILARITY, words=words)


def _untrained(seeds: Sequence[int], size: Size) -> dict[str, Any]:
    """What demo.json holds where nothing was trained."""
    about = {**vars(size), "single": list(size.single)}
    return {"format": FORMAT, "seeds": list(seeds), "size": about, "rows": {}, "best_single": [], "worlds": []}


def claim(out: Path) -> None:
    """Make `out` an empty folder of the demo's: new, or that of an earlier demo. Raises OutputError."""
    with output_faults(out):
        if out.exists() and any(out.iterdir()):
            if not (out / MARKER).exists():
                raise OutputError("holds something other than a demo", where=out, fix="Choose another --out")
            for entry in out.iterdir():
                if entry.name != MARKER:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        out.mkdir(parents=True, exist_ok=True)
    write_text(out / MARKER, "`labelmerge demo` wrote everything in this folder, and replaces it when it runs again.\n")


def summarise(worlds: Sequence[tuple[int, Sequence[Scores]]], size: Size) -> dict[str, Any]:
    """What demo.json holds: for each row of the table its figures in every world, and everything they come from.

    The row ``single`` is the mean over the single-dataset models; ``best single`` is the one that has the highest
    harmonic mean on the held-out sets, chosen by looking at them, which flatters it.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    best: list[str] = []
    for _, scores in worlds:
        single = [score for score in scores if score.method.startswith(SINGLE)]
        top = max(single, key=lambda score: score.harmonic)
        best.append(top.method.partition("/")[2])
        table = {
            "single": {name: mean([score.metrics()[name] for score in single]) for name in METRICS},
            "best": top.metrics(),
            **{score.method: score.metrics() for score in scores if score.method in MERGED},
        }
        for row, figures in table.items():
            for name in METRICS:
                rows.setdefault(row, {}).setdefault(name, []).append(figures[name])
    return {
        "format": FORMAT,
        "seeds": [seed for seed, _ in worlds],
        "size": {**vars(size), "single": list(size.single)},
        "rows": rows,
        "best_single": best,
        "worlds": [{"seed": seed, "scores": [score.to_json() for score in scores]} for seed, scores in worlds],
    }
