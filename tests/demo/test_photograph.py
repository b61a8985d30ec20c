"""The demo's photograph: from outlines to a picture in other words; and left out where there are no weights."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmerge.demo import photograph
from labelmerge.demo.photograph import ASKED, photograph_card, segment_photograph

needs_weights = pytest.mark.skipif(find_spec(photograph._PACKAGE) is None, reason="the lite extra is not installed")


@needs_weights
def test_outlines_become_an_answer_for_every_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photograph, "_SETTINGS", {"steps": 1, "batch_size": 1, "crop": 32, "short_edge": 64})
    found = segment_photograph(tmp_path / "photograph")
    assert found is not None and 0.3 < found.outlined < 0.6
    answer = np.asarray(Image.open(tmp_path / "photograph/answer/china.png"))
    assert answer.shape == (427, 640) and answer.max() < 5
    told = json.loads((tmp_path / "photograph/answer/china.json").read_text())
    assert [label["name"] for label in told["labels"]] == list(ASKED)
    card = photograph_card(found)
    assert "sky, pagoda, lake, tree, shore" in card.about and "photograph/run" in card.command
    assert all(uri.startswith("data:image/jpeg;base64,/9j/") for _, uri in card.pictures)


def test_without_the_extra_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photograph, "_PACKAGE", "no_such_package")
    assert segment_photograph(tmp_path / "photograph") is None
    assert not (tmp_path / "photograph").exists()
