from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.errors import BankError, UsageError
from labelmerge.names import PROMPT_TEMPLATE
from labelmerge.plot.similarity import block_diagonality, plot_similarity


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
    assert plot_similarity(bank, tmp_path / "one.png").labels == 20
    drawn = plot_similarity(bank, tmp_path / "two.png", words=words)
    assert (drawn.labels, drawn.left_out) == (10, 10) and [title for title, _ in drawn.blocks] == [
        "Words · made",
        "Sentences · made",
    ]
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width > 1.5 * one.width


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_bank_gives_the_same_file(bank: Bank, tmp_path: Path, ending: str) -> None:
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    for path in (first, second):
        assert plot_similarity(bank, path, datasets=["b"]).labels == 10
    assert first.read_bytes() == second.read_bytes()


def test_names_are_left_out_where_there_is_no_room(bank: Bank, tmp_path: Path) -> None:
    plot_similarity(bank, tmp_path / "named.svg")
    plot_similarity(bank, tmp_path / "bare.svg", max_names=19)
    assert "<!-- label 7 -->" in (tmp_path / "named.svg").read_text()
    assert "<!-- label 7 -->" not in (tmp_path / "bare.svg").read_text()


def test_what_cannot_be_drawn_is_said(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't draw .bmp files. Use .png, .svg, .pdf"):
        plot_similarity(bank, tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="has no label of"):
        plot_similarity(bank.for_dataset("a"), tmp_path / "x.png", words=bank.for_dataset("b"))
    with pytest.raises(BankError, match="no labels of 'c'"):
        plot_similarity(bank, tmp_path / "x.png", datasets=["c"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seed", "blocks"), [(0, None), (1, 3), (2, 7)])
def test_block_diagonality_is_what_it_says(bank: Bank, seed: int, blocks: int | None) -> None:
    vectors = np.random.default_rng(seed).normal(size=(20, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = replace(bank, vectors=vectors.astype(np.float32))
    clusters = [[n] for n in range(20)]
    while len(clusters) > (blocks or 4):  # 4 is the square root of 20, rounded
        i, j = max(
            combinations(range(len(clusters)), 2),
            key=lambda two: min(float(vectors[a] @ vectors[b]) for a in clusters[two[0]] for b in clusters[two[1]]),
        )
        clusters = [c for n, c in enumerate(clusters) if n not in (i, j)] + [clusters[i] + clusters[j]]
    place = {thing: number for number, cluster in enumerate(clusters) for thing in cluster}
    pairs = [(place[a] == place[b], float(vectors[a] @ vectors[b])) for a, b in combinations(range(20), 2)]
    within = np.mean([cosine for same, cosine in pairs if same])
    between = np.mean([cosine for same, cosine in pairs if not same])
    assert block_diagonality(made, blocks) == pytest.approx((within - between) / (1 - between), abs=1e-6)


def test_block_diagonality_has_fixed_ends(bank: Bank) -> None:
    flat = replace(bank, vectors=np.ones((20, 1), np.float32))
    assert block_diagonality(flat) == 0 == block_diagonality(bank, 1) == block_diagonality(bank, 20)
    blocks = replace(bank, vectors=np.repeat(np.eye(4, dtype=np.float32), 5, axis=0))
    assert block_diagonality(blocks) == pytest.approx(1)
    # An encoder whose cosines lie between 0.7 and 1 instead of -1 and 1 gives the same number.
    narrow = np.hstack([np.sqrt(0.15) * bank.vectors, np.full((20, 1), np.sqrt(0.85))]).astype(np.float32)
    assert block_diagonality(replace(bank, vectors=narrow)) == pytest.approx(block_diagonality(bank), abs=1e-5)
    with pytest.raises(ValueError, match="21 blocks of 20 texts"):
        block_diagonality(bank, 21)


def test_equal_texts_count_once(bank: Bank) -> None:
    twice = replace(
        bank,
        texts=[f"text {n % 10}" for n in range(20)],
        vectors=np.vstack([bank.vectors[:10], bank.vectors[:10]]),
    )
    assert block_diagonality(twice) == pytest.approx(block_diagonality(bank.for_dataset("a")), abs=1e-6)


def test_the_command(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    picture = tmp_path / "similarity.png"
    result = run("plot", "similarity", "--bank", tmp_path / "bank", "--dataset", "a", "--out", picture)
    assert result.exit_code == 0 and f"Drew 10 labels: {picture}" in result.stdout
    assert "block-diagonality 0." in result.stdout
    with Image.open(picture) as image:
        assert image.format == "PNG"
    wrong = run("plot", "similarity", "--bank", tmp_path / "bank", "--out", tmp_path / "x.gif")
    assert wrong.exit_code == 2 and "Traceback" not in wrong.output
