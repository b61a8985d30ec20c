from __future__ import annotations

import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from labelmerge.errors import ConfigError, UsageError
from labelmerge.train.config import _GROUPS, TrainConfig, load_config, parse_setting, preset_names


def test_presets_are_the_papers() -> None:
    assert preset_names() == ["hrnet-w48", "segformer-b5", "tiny"]
    segformer, hrnet = load_config("segformer-b5"), load_config("hrnet-w48")
    assert (segformer.model, segformer.optimizer, segformer.lr, segformer.crop) == ("segformer-b5", "adamw", 6e-5, 640)
    assert (hrnet.model, hrnet.optimizer, hrnet.lr, hrnet.momentum, hrnet.crop) == ("hrnet-w48", "sgd", 0.01, 0.9, 713)
    assert segformer.short_edge == hrnet.short_edge == 1080
    assert load_config().model == "tiny"


def test_file_over_preset_and_flags_over_both(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('preset = "segformer-b5"\nlr = 1\nsteps = 7\n[weights]\nstreets = 2\n')
    config = load_config(file=file, overrides={"steps": 9})
    assert (config.model, config.lr, config.steps, config.weights) == ("segformer-b5", 1.0, 9, {"streets": 2})
    assert load_config("tiny", file).model == "tiny"


def test_a_resolved_configuration_reads_back(tmp_path: Path) -> None:
    config = load_config("hrnet-w48", overrides={"losses": ["hd"], "weights": {"a": 2}, "drop": 0.1})
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps({**config.to_dict(), "inputs": {"bank_version": "v"}}))
    assert load_config(file=file) == config
    assert tomllib.loads(file.read_text())["losses"] == ["hd"]


def test_the_summary_has_every_setting() -> None:
    assert sorted(name for group in _GROUPS.values() for name in group) == sorted(f.name for f in fields(TrainConfig))
    lines = load_config().summary()
    assert len(lines) == len(_GROUPS) and "lr=0.002" in "".join(lines)


@pytest.mark.parametrize(
    "settings, what",
    [
        ({"stepz": 3}, r"unknown setting 'stepz' \(Did you mean steps\?\)"),
        ({"zzz": 3}, r"unknown setting 'zzz' \(Known: .*workers\)"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"bf16": 1}, "bf16 must be true or false"),
        ({"losses": [1]}, "losses must be a list of strings"),
        ({"weights": {"a": 0.5}}, "must be a whole number"),
        ({"steps": 0, "drop": 1.0}, "steps must be at least 1.*drop must be"),
        ({"label_space": "onion"}, "label_space must be one of union, dataset"),
        ({"losses": ["hd", "xx"]}, "losses must be some of hd, ld, wd"),
        ({"losses": []}, "losses must be some of"),
        ({"flip": 2.0}, "flip must be within 0 to 1"),
        ({"lr": -1.0}, "lr must not be negative"),
        ({"lr": math.nan}, "lr must not be negative"),
        ({"lr": math.inf}, "lr must be at most"),
        ({"workers": 100_000}, "workers must be at most 1024, not 100000"),
        ({"scale_min": 3.0}, "scale_min"),
        ({"temperature": 5.0}, "temperature must be within"),
        ({"seed": 2**63}, "seed must be at most 9223372036854775807"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        load_config(overrides=settings)


def test_wrong_files_and_presets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="segformer-b5"):
        load_config("segformer")
    with pytest.raises(ConfigError, match="nowhere.toml: can't be read"):
        load_config(file=tmp_path / "nowhere.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("lr = ")
    with pytest.raises(ConfigError, match="bad.toml: can't be read as TOML"):
        load_config(file=bad)
    bad.write_text("preset = 3")
    with pytest.raises(UsageError, match="unknown preset 3. Known: hrnet-w48"):
        load_config(file=bad)
    bad.write_text("crup = 3")
    with pytest.raises(ConfigError, match="bad.toml: unknown setting 'crup'.*crop"):
        load_config(file=bad)


def test_single_settings_are_read_as_toml() -> None:
    assert parse_setting("lr=1e-3") == ("lr", 1e-3)
    assert parse_setting("weights={ade20k = 2}") == ("weights", {"ade20k": 2})
    assert parse_setting("labels = all") == ("labels", "all")
    assert load_config(overrides=dict([parse_setting("losses=hd,wd")])).losses == ("hd", "wd")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_setting("lr")
