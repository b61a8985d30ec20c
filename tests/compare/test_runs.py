"""Runs side by side: from run folders written by hand, as docs/architecture.md and docs/evaluation.md describe them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labelmerge.compare.curves import loss_curves
from labelmerge.compare.records import read_records
from labelmerge.compare.report import report_runs
from labelmerge.compare.tables import Table
from labelmerge.errors import CheckpointError, LabelmergeError

from ..plot.browser import browser_tab


def make_run(folder: Path, *, merge: str = "embedding", steps: int = 20, weights: str = "a", lr: float = 1e-3) -> Path:
    checkpoint = folder / f"checkpoints/step-{steps:06d}"
    checkpoint.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'model = "tiny"\nlosses = ["hd", "wd"]\nmerge = "{merge}"\nsteps = {steps}\nlr = {lr}\n'
        f'[inputs]\nbank_version = "v0001-{weights * 8}"\n[inputs.manifests]\n"rooms/train" = "{weights * 64}"\n'
    )
    meta = {"step": steps, "merge": merge, "sha256": {"model.safetensors": weights * 64}, "columns": ["x"] * 3}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    lines = [
        {"step": s, "loss": 8 / s, "parts": {"hd": 6 / s, "wd": None}, "samples_per_second": 10.0 * s, "skipped": 1}
        for s in range(5, steps + 1, 5)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3')
    return folder


def make_results(
    path: Path, miou: Mapping[str, float | None], *, weights: str = "a", classes: int = 3, **protocol: Any
) -> Path:
    sets = [
        {
            "dataset": name.partition("-")[0],
            "split": name.partition("-")[2],
            "images": 1234,
            "miou": value,
            "pixel_accuracy": 0.9,
            "ignored_share": 0.25,
            "source": {"kind": "shards", "manifest_sha256": f"data of {name}"},
            "classes": [{"name": f"a|b <{k}>", "iou": None if k else value} for k in range(classes)],
        }
        for name, value in miou.items()
    ]
    checkpoint = {"hash": weights * 16, "step": 20, "model": "tiny", "merge": "naive"}
    content = {"format": "labelmerge-results/1", "sets": sets, "protocol": {"checkpoint": checkpoint, **protocol}}
    path.write_text(json.dumps(content))
    return path


def texts(tables: Sequence[Table], title: str) -> list[list[str]]:
    (table,) = [table for table in tables if table.title == title]
    return [list(table.columns), *([("*" if cell.best else "") + cell.text for cell in row] for row in table.rows)]


@pytest.fixture
def runs(tmp_path: Path) -> Sequence[Path]:
    """Two measured runs, the second on one set more, and one without results."""
    first = make_run(tmp_path / "naive", merge="naive", weights="a")
    make_results(first / "results.json", {"rooms-val": 0.5, "streets-val": 0.25})
    second = make_run(tmp_path / "ours", weights="b", lr=6e-5)
    make_results(second / "r.json", {"rooms-val": 0.25, "streets-val": 0.75, "zoo-test": 0.1}, weights="b")
    return [first, second, make_run(tmp_path / "unmeasured", weights="c")]


def test_results_side_by_side(runs: Sequence[Path], tmp_path: Path) -> None:
    report = report_runs(runs, tmp_path / "out")
    assert texts(report.tables, "Results") == [
        ["run", "merge", "losses", "model", "step", "rooms-val", "streets-val", "zoo-test"]
        + ["harmonic mean of 2 common sets"],
        ["naive", "naive", "hd, wd", "tiny", "20", "*50.0", "25.0", "-", "33.3"],
        ["ours", "embedding", "hd, wd", "tiny", "20", "25.0", "*75.0", "10.0", "*37.5"],
        ["unmeasured", "embedding", "hd, wd", "tiny", "20", "-", "-", "-", "-"],
    ]
    assert texts(report.tables, "Training")[1:2] == [["naive", "20", "0.4", "0.3", "-", "-", "125", "1"]]
    settings = {row[0]: row[1:] for row in texts(report.tables, "Settings that differ")}
    assert settings["lr"] == ["0.001", "6e-05", "0.001"] and settings["merge"][0] == "naive"
    assert "data of rooms/train" in settings and "steps" not in settings and "columns" not in settings
    assert report.notes == ["No results of unmeasured: `labelmerge eval --checkpoint RUN --out RUN/results.json`."]
    assert texts(report.tables, "rooms-val: classes")[:3] == [
        ["class", "naive", "ours", "difference"],
        ["a|b <0>", "*50.0", "25.0", "-25.0"],
        ["a|b <1>", "-", "-", "-"],
    ]
    (about,) = [table.about for table in report.tables if table.title == "streets-val: classes"]
    assert about.endswith("Difference: ours less naive, in points.")
    assert texts(report.tables, "streets-val: classes")[1][-1] == "+50.0"
    assert texts(report.tables, "zoo-test: classes")[0] == ["class", "ours"]


def test_a_short_curve_is_whole_and_a_long_one_without_its_few_peaks() -> None:
    def record(losses: Sequence[float]) -> Any:
        return SimpleNamespace(name="run", log=[{"step": n + 1, "loss": loss} for n, loss in enumerate(losses)])

    short = loss_curves([record([1.86, 0.91, 0.6, 0.57, 0.47, 0.48])])
    assert short is not None and not short.cut
    assert [loss for loss, _ in short.ticks] == [0.0, 0.5, 1.0, 1.5]
    heights = [float(point.split(",")[1]) for point in short.lines[0].points.split()]
    assert min(heights) == heights[0] > 5  # the first is not cut off
    at_one = short.ticks[2][1]
    assert heights[1] > at_one > heights[0]
    long = loss_curves([record([100.0, *[1.0] * 199])])
    assert long is not None and long.cut and long.ticks[-1][0] == 1.0
    assert loss_curves([record([1.0])]) is None


def test_page_and_markdown_hold_the_same(runs: Sequence[Path], tmp_path: Path) -> None:
    report_runs(runs, tmp_path / "out")
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert '<td class="best">75.0</td>' in page and "**75.0**" in text
    assert "a|b &lt;0&gt;" in page and "<0>" not in page and r"a\|b &lt;0>" in text
    assert page.count("<polyline") == 3
    for outside in ("http:", "https:", "src=", "<link"):
        assert outside not in page
    assert text.count("\n## Results\n") == 1 and "other figures" not in text and "other figures" in page


def test_columns_sort_by_number_and_by_word(runs: Sequence[Path], tmp_path: Path) -> None:
    report_runs(runs, tmp_path / "out")
    column = "[...document.querySelectorAll('tbody')[0].rows].map(row => row.cells[AT].textContent)"
    with browser_tab(tmp_path / "profile") as tab:
        tab.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
        tab.send("Page.navigate", url=(tmp_path / "out/report.html").as_uri())
        tab.until("document.readyState === 'complete' && document.querySelectorAll('table').length > 0")
        names = tab.run("[...document.querySelectorAll('thead')[0].querySelectorAll('th')].map(h => h.textContent)")
        at = names.index("rooms-val")

        def sorted_by(number: int) -> list[str]:
            tab.run(f"document.querySelectorAll('thead')[0].querySelectorAll('button')[{number}].click()")
            found: list[str] = tab.run(column.replace("AT", str(number)))
            return found

        down, up = sorted_by(at), sorted_by(at)
        assert down[-1] == up[-1] == "-", "what was not measured comes last"
        numbers = [float(text) for text in down[:-1]]
        assert numbers == sorted(numbers, reverse=True) == [float(text) for text in up[-2::-1]] != numbers[::-1]
        words = sorted_by(0)
        assert words == sorted(words)
        assert tab.run("document.querySelectorAll('thead th')[0].getAttribute('aria-sort')") == "ascending"
        assert tab.run("document.documentElement.scrollWidth") <= 400, "tables scroll within the page"
        assert not tab.errors


def test_many_classes_are_folded_and_left_out_of_markdown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_results(run / "results.json", {"big-val": 0.5}, classes=150)
    report = report_runs([run], tmp_path / "out")
    assert [table.folded for table in report.tables if table.title == "big-val: classes"] == [True]
    assert "big-val: classes" not in (tmp_path / "out/report.md").read_text()


def test_results_from_elsewhere_find_their_run(runs: Sequence[Path], tmp_path: Path) -> None:
    flipped = make_results(tmp_path / "flipped.json", {"rooms-val": 0.6}, flip=True)
    stray = make_results(tmp_path / "stray.json", {"rooms-val": 0.1}, weights="f")
    known = runs[0] / "results.json"
    report = report_runs([runs[0], flipped, stray, known, runs[0]], tmp_path / "out")
    assert [row[:2] for row in texts(report.tables, "Results")[1:]] == [
        ["naive, results", "naive"],
        ["naive, flipped", "naive"],
        ["stray", "naive"],
    ]
    only = make_results(tmp_path / "few.json", {"rooms-val": 0.5}, weights="d", classes=2)
    content = json.loads(only.read_text())
    content["protocol"]["classes"] = {"leave_out": ["floor"]}
    only.write_text(json.dumps(content))
    (note,) = [n for n in report_runs([runs[0], only], tmp_path / "few").notes if "same way" in n]
    assert "classes" in note and "floor" in note
    assert report.notes == ["Not measured in the same way. naive, results / stray: flip -; naive, flipped: flip true."]


def test_labels_asked_for_in_two_ways_are_said(runs: Sequence[Path], tmp_path: Path) -> None:
    for run, by in zip(runs, ("text", "concepts"), strict=False):
        path = next(run.glob("r*.json"))
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "protocol": {**content["protocol"], "by": by}}))
    assert not any("same way" in note for note in report_runs(runs, tmp_path / "out").notes), "their merges differ"
    make_results(runs[1] / "text.json", {"rooms-val": 0.6}, weights="b", by="text")
    assert report_runs(runs, tmp_path / "out").notes[0] == (
        "Not measured in the same way. naive / ours, text: by text; ours, r: by concepts."
    )


def test_results_of_the_run_that_was_there_before_are_left_out(tmp_path: Path, caplog: Any) -> None:
    run = make_run(tmp_path / "run", weights="b")
    make_results(run / "before.json", {"rooms-val": 0.9}, weights="a")
    (record,) = read_records([run])
    assert not record.results and "before.json (is of other weights than the run has at step 20" in caplog.text
    content = json.loads((run / "before.json").read_text())
    for step, kept in ((10, True), (30, False)):  # of a checkpoint that is no longer kept; of one that never was
        content["protocol"]["checkpoint"]["step"] = step
        (run / "before.json").write_text(json.dumps(content))
        assert bool(read_records([run])[0].results) == kept


def test_one_list_for_other_sets_is_another_list(tmp_path: Path) -> None:
    paths = [
        make_results(tmp_path / "a.json", {"rooms-val": 0.5, "zoo-val": 0.5}, mixed=True),
        make_results(tmp_path / "b.json", {"rooms-val": 0.5, "zoo-val": 0.5}, weights="b", mixed=True),
    ]
    assert report_runs(paths, tmp_path / "out").notes == []
    more = {"rooms-val": 0.5, "streets-val": 0.5, "zoo-val": 0.5}
    paths.append(make_results(tmp_path / "c.json", more, weights="c", mixed=True))
    assert report_runs(paths, tmp_path / "out").notes == [
        "One list for all sets is of the labels of different sets. a, b: rooms-val, zoo-val; "
        "c: rooms-val, streets-val, zoo-val."
    ]


def test_two_classes_of_one_name_are_two(tmp_path: Path) -> None:
    path = make_results(tmp_path / "a.json", {"rooms-val": 0.5})
    content = json.loads(path.read_text())
    content["sets"][0]["classes"] = [{"name": name, "index": k, "iou": k / 10} for k, name in enumerate("xyx")]
    path.write_text(json.dumps(content))
    ((measured,),) = (record.results for record in read_records([path]))
    assert measured.sets["rooms-val"].classes == {"x (0)": 0.0, "y": 0.1, "x (2)": 0.2}


def test_other_data_are_said(tmp_path: Path) -> None:
    paths = [make_results(tmp_path / f"{name}.json", {"rooms-val": 0.5}, weights=name) for name in "ab"]
    paths[1].write_text(paths[1].read_text().replace("data of rooms", "other data of rooms"))
    report = report_runs(paths, tmp_path / "out")
    assert report.notes == ["rooms-val was read from different shards or folders, so it may not be the same data."]
    assert {cell.best for row in report.tables[0].rows for cell in row} == {False}  # 50.0 twice: none is better


def test_sets_of_which_not_all_could_be_read_are_said(tmp_path: Path) -> None:
    paths = [make_results(tmp_path / f"{name}.json", {"rooms-val": 0.5}, weights=name) for name in "abc"]
    paths[1].write_text(paths[1].read_text().replace("1234", "1230"))
    report = report_runs(paths, tmp_path / "out")
    assert report.notes == ["rooms-val was measured on 1,234 images by a, c; 1,230 images by b."]


def test_classes_that_a_baseline_cannot_predict_are_said(tmp_path: Path) -> None:
    for name in "abc":
        path = make_results(tmp_path / f"{name}.json", {"rooms-val": 0.5, "zoo-test": 0.5}, weights=name)
        content = json.loads(path.read_text())
        content["sets"][0]["classes"][1]["predicted_as"] = 0  # the twin of another: predicted under its name
        content["sets"][1]["classes"][2].update({"predicted_as": None} if name != "c" else {})
        path.write_text(json.dumps(content))
    report = report_runs([tmp_path / f"{name}.json" for name in "abc"], tmp_path / "out")
    assert report.notes == [
        "a, b: 1 of 3 classes of zoo-test are never predicted, because no label of that name was trained on."
    ]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / parent / "run") for parent in ("a", "b")]
    strays = [make_results(tmp_path / parent / "results.json", {"rooms-val": 1}, weights="e") for parent in "ab"]
    (tmp_path / "b/results.json").write_text(strays[1].read_text().replace("e" * 16, "d" * 16))
    assert [run.name for run in read_records([*folders, *strays])] == ["a/run", "b/run", "a", "b"]


def test_a_run_that_has_only_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/config.toml").write_text('model = "tiny"\n')
    (tmp_path / "new/results.json").write_text('{"format": "labelmerge-results/1", "sets": 3}')
    (tmp_path / "new/notes.json").write_text("[1]")
    report = report_runs([tmp_path / "new"], tmp_path / "out")
    assert texts(report.tables, "Results")[1] == ["new", "?", "?", "tiny", "-"]
    assert report.curves is None and "skipped" in caplog.text and "malformed" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"miou": 0.5', '"miou": Infinity'),
        ('"miou": 0.5', '"miou": 1e400'),
        ('"miou": 0.5', f'"miou": 1{"0" * 400}'),
        ('"miou": 0.5', '"miou": 5.0'),
        ('"miou": 0.5', '"miou": true'),
        ('"miou": 0.5', f'"miou": {"[" * 5000}{"]" * 5000}'),
        ('"step": ', '"step": NaN, "was": '),
    ],
)
def test_one_bad_file_does_not_end_the_report(
    old: str, new: str, runs: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.json"
    make_results(other, {"rooms-val": 0.5})
    assert old in other.read_text()
    other.write_text(other.read_text().replace(old, new))
    report = report_runs([*runs, other], tmp_path / "out")
    assert len(report.runs) == len(runs) and caplog.text.count("left out:") == 1 and "other.json" in caplog.text


def test_faults(runs: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"not runs: .*empty, .*none\. Give folders that"):
        report_runs([*runs, tmp_path / "empty", tmp_path / "none"], tmp_path / "out")
    other = tmp_path / "other.json"
    for content, message in (("{", "can't be read as JSON"), ("[]", "its format is None"), ('{"format": 1}', "is 1")):
        other.write_text(content)
        with pytest.raises(LabelmergeError, match=message):
            report_runs([other], tmp_path / "out")
    make_results(other, {"rooms-val": 0.5})
    other.write_text(other.read_text().replace('"miou": 0.5', '"miou": "high"'))
    with pytest.raises(LabelmergeError, match="malformed"):
        report_runs([other], tmp_path / "out")
    (runs[0] / "config.toml").write_text("model =")
    with pytest.raises(CheckpointError, match="config.toml: can't be read as TOML"):
        report_runs(runs[:1], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(report_runs(runs, tmp_path / "out").runs) == len(runs) - 1 and "config.toml" in caplog.text


def test_command(runs: Sequence[Path], tmp_path: Path, run: Callable[..., Any]) -> None:
    result = run("report", *runs, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith("report.html and report.md: 3 runs, 2 results")
    shown = [line.split() for line in result.stdout.splitlines()]
    assert ["naive", "naive", "hd,", "wd", "tiny", "20", "50.0*", "25.0", "-", "33.3"] in shown
    assert ["unmeasured", "embedding", "hd,", "wd", "tiny", "20", *"----"] in shown
    assert "the best of each column is marked by *" in result.stdout
    data = json.loads(run("report", runs[0], "--out", tmp_path / "out", "--json").stdout)
    assert data["tables"][0]["rows"][0][:2] == ["naive", "naive"]
    result = run("report", tmp_path, "--out", tmp_path / "no")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "not a run" in result.stderr
    assert run("report", "--out", tmp_path / "no").exit_code == 2
