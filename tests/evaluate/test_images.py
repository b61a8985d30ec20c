"""How well each image was segmented: `results.images.csv`, against counting pixels one by one."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.evaluate.evaluate import evaluate
from labelmerge.evaluate.images import HEADER
from labelmerge.labels import LabelSpace
from labelmerge.methods.inference import segment
from labelmerge.methods.restore import load_trained

SPACE = LabelSpace("streets", (0, 3, 7), ("road", "car, parked", "sky"))


def test_every_labelled_image_is_there_with_its_figures_and_its_largest_mistake_the_worst_first(
    tmp_path: Path, tools: Any
) -> None:
    bank = tools.bank([("streets", i, n, f"About {n}.") for i, n in zip(SPACE.indices, SPACE.names, strict=True)])
    model = load_trained(tools.run(tmp_path / "run", bank)).learner.model
    indices = np.array(SPACE.indices, np.uint8)
    samples, expected = [], {}
    for number, wrong_rows in enumerate((2, 9, 0, 5)):
        image = np.random.default_rng(number).integers(0, 256, (16, 20, 3), np.uint8)
        seen = segment(model, image, bank.rows(SPACE.keys), tau=1)
        truth = seen.copy()
        truth[:wrong_rows] = (seen[:wrong_rows] + 1) % 3
        mask = indices[truth]
        mask[:, :3] = 255
        samples.append((tools.png(image), tools.png(mask)))
        pairs = [(int(t), int(p)) for t, p in zip(truth[:, 3:].ravel(), seen[:, 3:].ravel(), strict=True)]
        ious = []
        for k in sorted({place for pair in pairs for place in pair}):
            both = sum(pair == (k, k) for pair in pairs)
            ious.append(both / sum(k in pair for pair in pairs))
        mistakes = Counter(pair for pair in pairs if pair[0] != pair[1])
        right = sum(t == p for t, p in pairs) / len(pairs)
        expected[f"streets-val-{number:09d}"] = (len(pairs), right, sum(ious) / len(ious), mistakes)
    unlabelled = np.full((16, 20), 255, np.uint8)
    samples.append((tools.png(np.zeros((16, 20, 3), np.uint8)), tools.png(unlabelled)))
    samples.append((b"no picture", tools.png(unlabelled)))
    tools.split(tmp_path / "shards/streets/val", SPACE, samples)

    evaluate(tmp_path / "run", [tmp_path / "shards"], None, tmp_path / "r.json")

    with (tmp_path / "r.images.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == list(HEADER)
    assert [row[1] for row in rows] == sorted(expected, key=lambda key: expected[key][1]) and len(rows) == 4
    for name, key, source, labelled, accuracy, miou, truth_name, taken_for, pixels in rows:
        count, right, mean, mistakes = expected[key]
        assert (name, source, int(labelled)) == ("streets-val", "", count)
        assert float(accuracy) == pytest.approx(right, abs=5e-5)
        assert float(miou) == pytest.approx(mean, abs=5e-5)
        if not mistakes:
            assert (truth_name, taken_for, pixels) == ("", "", "0")
        else:
            largest = mistakes[SPACE.names.index(truth_name), SPACE.names.index(taken_for)]
            assert int(pixels) == largest == max(mistakes.values())
