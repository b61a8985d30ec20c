"""Sets that a run was trained on in views of their own are shown as they were in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.evaluate.cross import count_predictions
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import LabelSpace
from labelmerge.model.views import Views

SPACES = (LabelSpace.of("rooms", ["wall", "floor", "counter"]), LabelSpace.of("streets", ["road", "car", "sky"]))
CONFIG = {"short_edge": 24, "views": {"rooms": {"short_edge": 12}, "streets": {"crop": 32}, "zoo": {}}}


def test_by_default_each_set_has_its_own_short_edge(tmp_path: Path, tools: Any) -> None:
    labels = [(*key, name) for space in SPACES for key, name in zip(space.keys, space.names, strict=True)]
    bank = tools.bank([(*label, f"About {label[-1]}.") for label in labels])
    rng = np.random.default_rng(0)
    for space in SPACES:
        image = np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        mask = rng.integers(0, 3, image.shape[:2]).astype(np.uint8)
        tools.split(tmp_path / "shards" / space.name / "val", space, [(tools.png(image), tools.png(mask))])
    shards, results = [tmp_path / "shards"], tmp_path / "r.json"
    runs = {edge: tools.run(tmp_path / str(edge), bank, config={"short_edge": edge}) for edge in (12, 24)}
    run = tools.run(tmp_path / "run", bank, config=CONFIG)

    both = evaluate(run, shards, None, results, mixed=True)
    assert both.protocol["short_edge"] == 24 and both.protocol["short_edges"] == {"rooms": 12}
    assert "--short-edge" not in both.reproduce
    seen = count_predictions(run, shards, None)
    for place, edge in enumerate((12, 24)):
        alone = evaluate(run, shards, None, results, views=Views(short_edge=edge), mixed=True)
        assert "short_edges" not in alone.protocol and f"--short-edge {edge} " in alone.reproduce
        ours, theirs = both.sets[place], alone.sets[place]
        np.testing.assert_array_equal(ours.confusion, theirs.confusion)
        assert ours.mixed is not None and theirs.mixed is not None and ours.mixed.miou == theirs.mixed.miou
        expected = count_predictions(runs[edge], shards, None)
        for mine, same in zip(seen[2 * place : 2 * place + 2], expected[2 * place :], strict=False):
            np.testing.assert_array_equal(mine.pixels, same.pixels)
    assert (both.sets[0].confusion != alone.sets[0].confusion).any()
