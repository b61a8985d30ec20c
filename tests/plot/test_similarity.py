from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.describe.prompts import PROMPT_TEMPLATE
from labelmerge.embed.bank import WORD_TEMPLATE, Bank
from labelmerge.errors import BankError, UsageError
from labelmerge.plot.similarity import dataset_colours, plot_similarity


@pytest.fixture
def bank() -> Bank:
    vectors = np.random.default_rng(0).normal(size=(20, 5))
    return Bank(
        encoder="made",
        identity={"model": "made"},
        prompt=PROMPT_TEMPLATE,
        keys=[(dataset, index) for dataset in ("a", "b") for index in range(10)],
        names=[f"label {n}" for n in range(20)],
        texts=[f"text {n}" for n in range(20)],
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        tokens=[3] * 20,
        truncated=[False] * 20,
    )


def test_words_stand_beside_sentences(bank: Bank, tmp_path: Path) -> None:
    words = replace(bank, prompt=WORD_TEMPLATE, version="").for_dataset("a")
    assert plot_similarity(bank, tmp_path / "one.png") == 20
    assert plot_similarity(bank, tmp_path / "two.png", words=words) == 10
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width > 1.5 * one.width


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_bank_gives_the_same_file(bank: Bank, tmp_path: Path, ending: str) -> None:
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    for path in (first, second):
        assert plot_similarity(bank, path, datasets=["b"]) == 10
    assert first.read_bytes() == second.read_bytes()


def test_names_are_left_out_where_there_is_no_room(bank: Bank, tmp_path: Path) -> None:
    plot_similarity(bank, tmp_path / "named.svg")
    plot_similarity(bank, tmp_path / "bare.svg", max_names=19)
    assert "<!-- label 7 -->" in (tmp_path / "named.svg").read_text()
    assert "<!-- label 7 -->" not in (tmp_path / "bare.svg").read_text()


def test_what_cannot_be_drawn_is_said(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't draw a .bmp. Use .png, .svg, .pdf"):
        plot_similarity(bank, tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="has none of the labels"):
        plot_similarity(bank.for_dataset("a"), tmp_path / "x.png", words=bank.for_dataset("b"))
    with pytest.raises(BankError, match="no labels of 'c'"):
        plot_similarity(bank, tmp_path / "x.png", datasets=["c"])
    assert not list(tmp_path.iterdir())


def test_every_dataset_has_a_colour_of_its_own() -> None:
    names = [f"dataset {n}" for n in range(20)]
    colours = dataset_colours(names)
    assert list(colours) == sorted(names) and len(set(colours.values())) == 20
    assert colours == dataset_colours(names[::-1])


def test_the_command(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    picture = tmp_path / "similarity.png"
    result = run("plot", "similarity", "--bank", tmp_path / "bank", "--dataset", "a", "--out", picture)
    assert result.exit_code == 0 and f"Drew 10 labels: {picture}" in result.stdout
    with Image.open(picture) as image:
        assert image.format == "PNG"
    wrong = run("plot", "similarity", "--bank", tmp_path / "bank", "--out", tmp_path / "x.gif")
    assert wrong.exit_code == 2 and "Traceback" not in wrong.output
