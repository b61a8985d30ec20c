"""The map as a figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.colours import dataset_styles
from labelmerge.errors import BankError, UsageError
from labelmerge.plot import map as map_figure
from labelmerge.plot.figures import dataset_legend
from labelmerge.plot.map import place_names, plot_map


@pytest.fixture
def bank(angle_bank: Callable[..., Bank]) -> Bank:
    rows = {("a", n): (f"thing {n}", f"It is {n}.", 7.0 * n) for n in range(30)}
    return angle_bank(rows | {("b", n): (f"thing {n}", f"It is {n}.", 7.0 * n) for n in range(20)})


@pytest.mark.parametrize("seed", range(3))
def test_names_cover_neither_marks_nor_names(seed: int) -> None:
    rng = np.random.default_rng(seed)
    anchors, sizes = rng.uniform(0, 100, (60, 2)), rng.uniform((6, 2), (20, 4), (60, 2))
    corners = place_names(anchors, np.full(60, 1.5), sizes, anchors, 1.0, (0, 0, 100, 100))
    boxes = {number: (x, y, x + sizes[number, 0], y + sizes[number, 1]) for number, (x, y) in corners.items()}
    assert 10 < len(boxes) < 60 and 0 in boxes  # the first has all the room, some have none
    title = (20.0, 20.0, 60.0, 60.0)
    beside = place_names(anchors, np.full(60, 1.5), sizes, anchors, 1.0, (0, 0, 100, 100), [title])
    assert beside and not any(
        x < title[2] and x + sizes[n, 0] > title[0] and y < title[3] and y + sizes[n, 1] > title[1]
        for n, (x, y) in beside.items()
    )
    for number, (left, bottom, right, top) in boxes.items():
        assert left >= 0 and bottom >= 0 and right <= 100 and top <= 100
        assert not any(left - 1 < x < right + 1 and bottom - 1 < y < top + 1 for x, y in anchors)
        for other, (left2, bottom2, right2, top2) in boxes.items():
            assert other == number or left >= right2 or left2 >= right or bottom >= top2 or bottom2 >= top


def test_each_text_is_named_once(bank: Bank, tmp_path: Path) -> None:
    drawn = plot_map(bank, tmp_path / "map.png")
    assert (drawn.labels, drawn.texts) == (50, 30) and 5 <= drawn.named <= 30


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_bank_and_seed_give_the_same_file(bank: Bank, tmp_path: Path, ending: str) -> None:
    for name in "one", "two":
        plot_map(bank, tmp_path / f"{name}{ending}", datasets=["b"], seed=3)
    assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()


def test_the_groups_names_stand_over_the_marks_and_apart(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(map_figure, "save_figure", lambda figure, out: seen.append(figure))
    drawn = plot_map(bank, tmp_path / "map.png")
    (axes,) = seen[0].axes
    titles = [text for text in axes.texts if text.get_fontweight() == "bold"]
    assert drawn.groups == len(titles) == 2
    assert min(title.get_zorder() for title in titles) > max(marks.get_zorder() for marks in axes.collections)
    boxes = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    for number, box in enumerate(boxes):
        assert box.x0 >= frame.x0 and box.x1 <= frame.x1
        assert box.count_overlaps([other for other in boxes[number + 1 :]]) == 0


def test_no_name_of_the_legend_is_cut_off() -> None:
    from matplotlib.figure import Figure

    styles = dataset_styles([f"a_dataset_with_a_long_name_{number}" for number in range(26)])
    for inches in (4, 9, 20):
        figure = Figure(figsize=(inches, 8), layout="constrained", dpi=100)
        dataset_legend(figure, styles)
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= 100 * inches


def test_one_label_is_a_map_too(bank: Bank, tmp_path: Path) -> None:
    drawn = plot_map(bank.for_keys([("a", 0)]), tmp_path / "one.png")
    assert (drawn.labels, drawn.texts, drawn.named) == (1, 1, 1)


def test_what_cannot_be_drawn_is_said(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't draw .gif files"):
        plot_map(bank, tmp_path / "map.gif")
    with pytest.raises(BankError, match="no labels of 'c'"):
        plot_map(bank, tmp_path / "map.png", datasets=["c"])
    assert not list(tmp_path.iterdir())


def test_the_command(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    result = run("plot", "map", "--bank", tmp_path / "bank", "--out", tmp_path / "map.png", "--dataset", "b")
    assert result.exit_code == 0, result.output
    assert re.search(r"Drew 20 labels of 20 distinct texts, \d+ of them by name: .*map.png", result.stdout)
    with Image.open(tmp_path / "map.png") as image:
        assert image.width > 1000
    none = run("plot", "map", "--bank", tmp_path / "nothing", "--out", tmp_path / "map.png")
    assert none.exit_code == 1 and "no bank here" in none.stderr and none.stderr.count("\n") == 1
