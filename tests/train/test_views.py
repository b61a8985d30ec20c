"""Views of single datasets: what a run makes of ``[views.DATASET]``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from labelmerge.errors import ConfigError
from labelmerge.train.config import TrainConfig, load_config
from labelmerge.train.loop import train
from labelmerge.train.views import augmentations

from ..weights import weights

CONFIG = TrainConfig(
    steps=3, batch_size=6, crop=32, optimizer="sgd", lr=1e-2, scale_min=0.9, scale_max=1.2, log_every=1,
    views={"streets": {"crop": [16, 40], "flip": 0}, "things": {"crop": 24, "scale_max": 1}},
)  # fmt: skip


def test_a_table_changes_what_it_names_and_nothing_else() -> None:
    common, own, absent = augmentations(CONFIG, ["parts", "streets"])
    assert (common.size, common.scale, common.flip) == ((32, 32), (0.9, 1.2), 0.5)
    assert own == {"streets": dataclasses.replace(common, crop=(16, 40), flip=0)}
    assert absent == ["views.things is for a dataset that is not trained on (Known: parts, streets)"]
    assert augmentations(CONFIG, ["things"])[1]["things"].scale == (0.9, 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"crops": 3}, "views.streets: unknown setting 'crops'"),
        ({"lr": 0.1}, "views.streets: unknown setting 'lr'"),
        ({"crop": [3, 4, 5]}, "views.streets: crop must be a side or"),
        ({"crop": 0}, r"crop must be a side or \[height, width\] in pixels, each at least 1, not 0"),
        ({"crop": True}, "crop must be"),
        ({"flip": 2}, "views.streets: flip must be within 0 to 1"),
        ({"scale_min": 1.5}, "views.streets: scale_min 1.5 must not be above scale_max 1.2"),
    ],
)
def test_wrong_tables_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, views={"streets": table})


def test_a_file_of_settings_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("crop = 64\n[views.cityscapes]\ncrop = [64, 128]\nshort_edge = 100\n")
    config = load_config(file=file)
    assert config.views == {"cityscapes": {"crop": [64, 128], "short_edge": 100}}
    assert TrainConfig.from_dict(config.to_dict()) == config
    file.write_text("views = 3\n")
    with pytest.raises(ConfigError, match="views must be a table of tables, not 3"):
        load_config(file=file)


def test_a_step_of_several_sizes_is_one_step(shards: Path, bank: Path, tmp_path: Path) -> None:
    whole = train([shards], bank, tmp_path / "whole", config=CONFIG, device="cpu")
    pieces = train([shards], bank, tmp_path / "pieces", config=dataclasses.replace(CONFIG, accumulate=2), device="cpu")
    lines = [json.loads(line) for line in (whole.run / "log.jsonl").read_text().splitlines()]
    assert all(value > 0 for line in lines for value in line["datasets"].values())
    assert pieces.final_loss == pytest.approx(whole.final_loss, rel=1e-6)
    ours, theirs = weights(whole), weights(pieces)
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 2e-5  # rounding of float32
    plain = train([shards], bank, tmp_path / "plain", config=dataclasses.replace(CONFIG, views={}), device="cpu")
    assert plain.final_loss != pytest.approx(whole.final_loss, rel=1e-3)
