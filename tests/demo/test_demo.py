"""The demo from end to end, small; and that table and page say what the figures say."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from labelmerge.demo.demo import claim, run_demo, summarise
from labelmerge.demo.experiment import QUICK
from labelmerge.demo.page import _heat, verdict
from labelmerge.demo.results import METRICS, Mean, Scores, scores_of, table
from labelmerge.errors import OutputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Run(Protocol):
    def __call__(self, *args: object) -> Result: ...


def test_a_small_demo_into_the_folder_of_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    claim(out)
    (out / "seed-7").mkdir()  # of an earlier demo with another seed: replaced
    data = run_demo(out, size=replace(QUICK, steps=3))
    assert json.loads((out / "demo.json").read_text()) == data
    assert set(data["rows"]) == {"single", "best", "naive", "words", "sentences", "concepts"}
    assert not (out / "seed-7").exists()
    assert data["rows"]["naive"]["unseen"] == [0.0]  # one-hot vectors have no name for what training has not
    page = (out / "demo.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page), "the page needs other files"
    assert page.count("data:image/png;base64,") > 40
    for text in ("wolf", "coach", "Cityscapes", "L_HD", "The same word, kept apart"):
        assert text in page
    assert not re.search(r"\bnan\b", page)
    assert "`" not in page.partition("<body>")[2]
    chart = page.partition("Masks, L_HD")[2].partition("</figure>")[0]
    assert chart.count("<polyline") == chart.count('class="dot"') == len(data["rows"])


def test_a_quick_demo_shows_labels_and_trains_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelmerge.demo.experiment.FULL", QUICK)
    out = tmp_path / "demo"
    result = run("demo", "--out", out, "--quick")
    assert result.exit_code == 0, result.output
    assert "the first pictures are ready" in result.stderr
    assert {"merge.html", "similarity.png", "taxonomy.csv"} <= {path.name for path in (out / "labels").iterdir()}
    page = (out / "demo.html").read_text(encoding="utf-8")
    assert "Where taxonomies agree and clash" in page and "What came out" not in page
    assert not (out / "seed-0/runs").exists()
    assert run("demo", "--out", out, "--quick", "--steps", "3").exit_code == 2


def test_a_folder_with_other_things_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = run("demo", "--out", tmp_path, "--quick")
    assert result.exit_code == 1
    assert "something other than a demo" in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(OutputError):
        claim(tmp_path)


def scores(method: str, seen: float, unseen: float, harmonic: float = 0.3) -> Scores:
    return Scores(method, {}, {"camvid": seen, "village": unseen}, harmonic, seen, unseen, 1.0)


def world(words: float, concepts: float) -> list[Scores]:
    return [
        scores("single/cityscapes", 0.2, 0.0, 0.1),
        scores("single/ade20k", 0.3, 0.1, 0.2),
        scores("naive", 0.25, 0.0),
        scores("words", words, 0.1),
        scores("sentences", 0.35, 0.1),
        scores("concepts", concepts, 0.1),
    ]


def test_rows_are_means_over_single_models_and_the_best_of_them() -> None:
    result = summarise([(0, world(0.4, 0.5)), (1, world(0.4, 0.6))], QUICK)
    assert result["rows"]["single"]["seen"] == pytest.approx([0.25, 0.25])
    assert result["rows"]["best"]["seen"] == [0.3, 0.3]
    assert result["best_single"] == ["ade20k", "ade20k"]
    assert set(result["rows"]["words"]) == set(METRICS)
    lines = table(result).splitlines()
    assert len(lines) == 7 and "55.0 ± 7.1" in lines[-1]


def rows(words: list[float], concepts: list[float]) -> dict[str, Any]:
    worlds = [(n, world(w, s)) for n, (w, s) in enumerate(zip(words, concepts, strict=True))]
    found: dict[str, Any] = summarise(worlds, QUICK)["rows"]
    return found


def test_the_verdict_follows_the_figures_whichever_way_they_go() -> None:
    assert "concepts beat words" in verdict(rows([0.4], [0.5]))[0]
    assert "concepts do not beat words" in verdict(rows([0.5], [0.4]))[0]
    assert "no clear difference" in verdict(rows([0.5], [0.51]))[0]
    assert "no clear difference" in verdict(rows([0.4, 0.5, 0.6], [0.5, 0.4, 0.65]))[0]
    better = verdict(rows([0.40, 0.41, 0.42], [0.50, 0.52, 0.51]))[0]
    assert "concepts beat words" in better and "3 of 3 worlds" in better


def test_seen_and_unseen_labels_are_told_apart() -> None:
    classes: dict[str, dict[str, float | None]] = {
        "village": {"sky": 0.8, "wolf": 0.2, "coach": 0.4},
        "camvid": {"Sky": 0.6, "Pole": None},
    }
    results = {
        "harmonic_mean": 0.5,
        "sets": [
            {"dataset": name, "miou": 0.5, "classes": [{"name": n, "iou": iou} for n, iou in rows_.items()]}
            for name, rows_ in classes.items()
        ],
    }
    found = scores_of("words", results, 1.0)
    assert found.seen == pytest.approx(0.7)
    assert found.unseen == pytest.approx(0.3)


def test_words_and_sentences_have_colours_of_their_own() -> None:
    cosines = np.where(np.eye(8, dtype=bool), 1.0, np.linspace(0, 0.5, 64).reshape(8, 8)).astype(np.float32)
    pixels = []
    for title in ("Words", "Sentences"):
        picture = Image.open(io.BytesIO(base64.b64decode(_heat(cosines, title).partition(",")[2])))
        pixels.append(np.asarray(picture.convert("RGB")).astype(int))
        assert pixels[-1][0, 0].sum() < 255 < 600 < pixels[-1][0, 1].sum()  # dark where it is the same thing
    assert (pixels[0][0, 1] != pixels[1][0, 1]).any() and np.abs(pixels[0][7, 6] - pixels[1][7, 6]).max() > 60


def test_means_show_their_spread() -> None:
    assert Mean.of([0.5]).percent() == "50.0"
    assert Mean.of([0.5, 0.7]).percent() == "60.0 ± 14.1"


def test_help_names_what_it_does(run: Run) -> None:
    result = run("demo", "--help")
    assert result.exit_code == 0
    assert "--seeds" in result.output and "labelmerge demo --out demo-out" in result.output
