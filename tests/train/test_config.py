from __future__ import annotations

import math
import pickle
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from labelmerge.errors import ConfigError, UsageError
from labelmerge.methods.method import find_method
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.settings import parse_setting, setting
from labelmerge.train.config import (
    INCIDENTAL,
    TrainConfig,
    all_settings,
    load_config,
    preset_names,
    settings_by_group,
)

from .settings_page import PAGE, with_settings

NAMES = [each.name for each in all_settings()]


def test_presets_are_the_papers() -> None:
    assert preset_names() == ["hrnet-w48", "lite", "segformer-b5", "tiny"]
    segformer, hrnet = load_config("segformer-b5"), load_config("hrnet-w48")
    assert (segformer.model, segformer.optimizer, segformer.lr, segformer.crop) == ("segformer-b5", "adamw", 6e-5, 640)
    assert (hrnet.model, hrnet.optimizer, hrnet.lr, hrnet.momentum, hrnet.crop) == ("hrnet-w48", "sgd", 0.01, 0.9, 713)
    assert segformer.short_edge == hrnet.short_edge == 1080
    for config in (segformer, hrnet):
        assert (config.merge, config.method_settings.negatives) == ("text", "all")
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
    config = load_config()
    lines = config.summary()
    assert [line.split()[0] for line in lines] == list(settings_by_group((config.method,)))
    shown = [part.partition("=")[0] for line in lines for part in line.split()[1:] if "=" in part]
    assert sorted(shown) == sorted(config.to_dict()) and set(shown) < set(NAMES)
    assert "lr=0.002  " in lines[5] and 'pretrained=""' in lines[0]


def test_the_tables_of_the_documentation_are_those_of_the_declarations() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_settings(page), "docs/training.md is stale: run python tests/train/settings_page.py"
    assert all(f"`{name}`" in page for name in NAMES)


def test_defaults_are_allowed_and_names_are_unique() -> None:
    for group in settings_by_group().values():
        assert not [each.fault(each.read(each.default)) for each in group if each.fault(each.default)]
    assert len(set(NAMES)) == len(NAMES)
    assert all(find_method(name) for name in METHOD_SETTINGS)


def test_runs_go_on_with_other_workers_and_not_with_other_losses() -> None:
    assert {"workers", "accumulate", "taxonomy", "tensorboard"} <= INCIDENTAL
    assert not INCIDENTAL & {"lr", "losses", "merge", "batch_size", "bf16", "seed", "ema"}


def test_a_methods_settings_stand_among_the_others_or_in_a_table_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("steps = 7\ndrop = 0.2\n")
    flat = load_config(file=file, overrides={"losses": "hd,wd"})
    file.write_text("steps = 7\n[ssiw]\ndrop = 0.2\n")
    assert load_config(file=file, overrides={"losses": "hd,wd"}) == flat
    assert flat.method_settings == SsiwSettings(losses=("hd", "wd"), drop=0.2, temperature_lr=2e-3)
    assert flat.changed(drop=0.3, steps=8).to_dict() == {**flat.to_dict(), "drop": 0.3, "steps": 8}
    assert TrainConfig.from_dict(flat.to_dict()) == flat == pickle.loads(pickle.dumps(flat))
    file.write_text("drop = 0.2\n[ssiw]\ndrop = 0.3\ndorp = 1\n")
    with pytest.raises(ConfigError, match=r"my.toml: \[ssiw\] unknown setting 'dorp' .*; drop is given twice"):
        load_config(file=file)


@dataclass(frozen=True)
class Prototypes:
    """The settings of a method that there could be."""

    prototypes: int = setting(10, "How many.", minimum=1)
    drop: float = setting(0.0, "Another thing of that name.", maximum=1)


def test_each_method_has_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHOD_SETTINGS, "prototypes", Prototypes)
    file = tmp_path / "my.toml"
    file.write_text('method = "prototypes"\n[prototypes]\nprototypes = 3\n[ssiw]\nlosses = ["hd"]\n')
    config = load_config(file=file, overrides={"drop": 1})  # and the preset's own table of SSIW is left out
    assert config.method_settings == Prototypes(3, 1.0) and "losses" not in config.to_dict()
    assert "prototypes prototypes=3  drop=1.0" in config.summary()
    with pytest.raises(ConfigError, match="losses is a setting of the method ssiw, and the method here is prototypes"):
        load_config(file=file, overrides={"losses": "hd"})
    assert load_config(file=file, overrides={"method": "ssiw", "drop": 0.4}).method_settings.losses == ("hd",)
    file.write_text("[prototypes]\nprototypez = 3\n")
    with pytest.raises(ConfigError, match=r"\[prototypes\] unknown setting 'prototypez' \(Did you mean prototypes\?"):
        load_config(file=file)
    with pytest.raises(ConfigError, match="are not the settings of the method prototypes"):
        replace(TrainConfig(), method="prototypes")


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
        ({"negatives": "onion"}, "negatives must be one of all, own, unrelated, graded"),
        ({"losses": ["hd", "xx"]}, "losses must be some of hd, ld, wd"),
        ({"losses": []}, "losses must be some of"),
        ({"flip": 2.0}, "flip must be within 0 to 1"),
        ({"lr": -1.0}, "lr must be at least 0, not -1.0"),
        ({"lr": math.nan}, "lr must be at least 0, not nan"),
        ({"lr": math.inf}, "lr must be at most"),
        ({"workers": 100_000}, "workers must be within 0 to 1024, not 100000"),
        ({"scale_min": 3.0}, "scale_min 3.0 must not be above scale_max 1.5"),
        ({"scale_min": 0.0}, "scale_min must be above 0, not 0.0"),
        ({"accumulate": 19}, "accumulate 19 makes more pieces than the batch has samples"),
        ({"method": "other"}, "unknown method 'other'. Known: "),
        ({"stepz": 3, "lr": -1.0, "drop": "x"}, "unknown setting 'stepz'.*; lr must be .*; drop must be a number"),
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
    assert load_config(overrides=dict([parse_setting("losses=hd,wd")])).method_settings.losses == ("hd", "wd")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_setting("lr")
