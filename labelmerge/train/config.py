"""The settings of a run: preset < file < flags, each a flat list of keys."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from labelmerge.errors import ConfigError, UsageError, did_you_mean
from labelmerge.merge.merges import MERGES

LOSSES = ("hd", "ld", "wd")
# These change how a run is carried out or shown, not what it computes (but for rounding, the draws of dropout and what
# batch norm averages over): they may differ when a run goes on. What a mapping says is part of the bank's version;
# where it lies doesn't matter.
INCIDENTAL = (
    "mapping", "accumulate", "channels_last", "compile", "workers", "cache_mb",
    "log_every", "checkpoint_every", "keep_checkpoints", "tensorboard",
)  # fmt: skip

_CHOICES = {
    "merge": ("embedding", *MERGES),
    "label_space": ("union", "dataset"),
    "labels": ("seen", "all"),
    "optimizer": ("adamw", "sgd"),
}
_AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "crop", "log_every", "checkpoint_every", "keep_checkpoints")
_LARGEST = 2**63 - 1  # of TOML and of torch
_MOST_WORKERS = 1024  # more would sooner fill a machine's memory than help
_PROBABILITIES = ("flip", "colour", "blur", "jpeg")
_GROUPS = {
    "model": ("model", "pretrained", "init", "method", "temperature", "temperature_lr"),
    "labels": ("merge", "mapping", "label_space", "labels"),
    "losses": ("losses", "hd_weight", "ld_weight", "wd_weight", "drop"),
    "batches": ("steps", "batch_size", "eval_sets", "weights", "seed", "workers", "cache_mb"),
    "views": ("crop", "short_edge", "scale_min", "scale_max", "flip", "colour", "blur", "jpeg"),
    "optimizer": (
        "optimizer", "lr", "head_lr_factor", "weight_decay", "momentum", "warmup", "power", "clip", "ema",
    ),
    "machine": ("accumulate", "bf16", "channels_last", "compile"),
    "output": ("log_every", "checkpoint_every", "keep_checkpoints", "tensorboard"),
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes, apart from the bank and the shards.

    Attributes:
        model: a name that `labelmerge.model.build.build_model` knows.
        pretrained: weights for the encoder: ``imagenet``, the path of a file, or "" for none.
        init: a run or a checkpoint whose weights and temperature the run begins with, for fine-tuning; "" for none.
            It takes the place of `pretrained` and `temperature`.
        method: what turns pixel embeddings into losses; ``ssiw`` is the only one so far.
        losses: which of SSIW's losses count: ``hd`` (masks), ``ld`` (noisy masks), ``wd`` (boxes). A dataset whose loss
            is not among them is left out.
        hd_weight, ld_weight, wd_weight: factors on the losses in their sum. L_WD, a sum over hundreds of dimensions,
            begins at about 20; with 0.1 it doesn't drown the others.
        drop: the share of the largest pixel losses that L_LD drops in each image.
        merge: what the label vectors are: the bank's own (``embedding``), or basis vectors of a baseline
            (`labelmerge.merge.baselines.merged_bank`): a class for each label (``naive``), for each ``name``, or for
            each group of a ``table``.
        mapping: the path of that table, or of one that overrules the embeddings; "" for none.
        label_space: the softmax runs over all columns (``union``, as in the paper) or over those of the sample's own
            dataset (``dataset``).
        labels: which labels are columns: those that occur in the shards (``seen``), or ``all`` of the datasets'.
        temperature: τ at the start; it is learned.
        temperature_lr: learning rate of log τ; it follows the same schedule.
        steps: how many batches the run takes.
        batch_size: samples in a batch, of all processes together, shared equally among the datasets.
        eval_sets: also train on datasets whose recipe says ``role = "eval"``; they are left out otherwise.
        weights: whole-number shares of datasets by name, where they should not be equal (1 where not given).
        seed: of the initial weights, the order of samples, their views and dropout.
        crop: side of a training view, pixels.
        short_edge: short edge of an image at scale 1, pixels; 0 keeps the image's size.
        scale_min, scale_max: range of the random factor on that size.
        flip: probability of the mirror image.
        colour: brightness, contrast and saturation change by factors within 1 ± colour.
        blur: probability of a Gaussian blur.
        jpeg: probability of JPEG artefacts.
        optimizer: ``adamw`` or ``sgd``.
        lr: learning rate of the encoder after the warm-up.
        head_lr_factor: the learning rate of everything but the encoder is this many times `lr`.
        weight_decay: of weights; norms, biases and the temperature have none.
        momentum: of SGD.
        warmup: steps in which the rate rises linearly from 0 to `lr`.
        power: exponent of the polynomial decay to 0 that follows.
        clip: the gradient's norm is cut to this; 0 leaves it alone.
        ema: the decay of an exponential moving average of the weights, which checkpoints then hold for evaluation
            (`labelmerge.model.ema`); 0 for none.
        accumulate: each process runs its part of a batch through the model in this many pieces, one after the other:
            the same step with less memory.
        bf16: bfloat16 autocast of the model where it runs on a GPU.
        channels_last: images and weights lie in memory with the channels last, which GPUs convolve faster.
        compile: the model goes through `torch.compile`.
        workers: processes that make batches; 0 makes them in the training process. The batches are the same.
        cache_mb: decoded samples are kept in memory up to this many megabytes.
        log_every: steps between lines of log.jsonl.
        checkpoint_every: steps between checkpoints; there is always one at the end.
        keep_checkpoints: how many of the newest checkpoints stay.
        tensorboard: what is logged goes to TensorBoard's files too, if that is installed.
    """

    model: str = "tiny"
    pretrained: str = ""
    init: str = ""
    method: str = "ssiw"
    losses: tuple[str, ...] = LOSSES
    hd_weight: float = 1.0
    ld_weight: float = 1.0
    wd_weight: float = 0.1
    drop: float = 0.3
    merge: str = "embedding"
    mapping: str = ""
    label_space: str = "union"
    labels: str = "seen"
    temperature: float = 0.07
    temperature_lr: float = 1e-3
    steps: int = 1000
    batch_size: int = 18
    eval_sets: bool = False
    weights: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    crop: int = 64
    short_edge: int = 0
    scale_min: float = 0.5
    scale_max: float = 2.0
    flip: float = 0.5
    colour: float = 0.3
    blur: float = 0.1
    jpeg: float = 0.1
    optimizer: str = "adamw"
    lr: float = 1e-3
    head_lr_factor: float = 1.0
    weight_decay: float = 0.01
    momentum: float = 0.9
    warmup: int = 0
    power: float = 0.9
    clip: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    bf16: bool = True
    channels_last: bool = False
    compile: bool = False
    workers: int = 0
    cache_mb: int = 256
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        problems = []
        for name, value in vars(self).items():
            if name in _CHOICES and value not in _CHOICES[name]:
                problems.append(f"{name} must be one of {', '.join(_CHOICES[name])}, not {value!r}")
            if name in _AT_LEAST_ONE and value < 1:
                problems.append(f"{name} must be at least 1, not {value}")
            if name in _PROBABILITIES and not 0 <= value <= 1:
                problems.append(f"{name} must be within 0 to 1, not {value}")
            # `not >=` rather than `<`, which lets nan through
            if isinstance(value, int | float) and not value >= 0:
                problems.append(f"{name} must not be negative, and is {value}")
            if isinstance(value, int | float) and value > _LARGEST:
                problems.append(f"{name} must be at most {_LARGEST}, not {value}")
        if not self.losses or set(self.losses) - set(LOSSES) or len(set(self.losses)) < len(self.losses):
            problems.append(f"losses must be some of {', '.join(LOSSES)}, not {list(self.losses)}")
        for name in ("drop", "ema"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name} must be at least 0 and below 1")
        if self.workers > _MOST_WORKERS:
            problems.append(f"workers must be at most {_MOST_WORKERS}, not {self.workers}")
        if self.accumulate > self.batch_size:
            problems.append(f"accumulate {self.accumulate} makes more pieces than the batch has samples")
        if not 0 < self.scale_min <= self.scale_max:
            problems.append("scale_min must be above 0 and not above scale_max")
        if not 0.01 <= self.temperature <= 1:
            problems.append("temperature must be within 0.01 to 1")
        if problems:
            raise ConfigError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """All settings as TOML knows them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def summary(self) -> list[str]:
        """All settings in a few lines, grouped, for people."""
        values = {
            name: str(value) if not isinstance(value, str) else value or '""' for name, value in self.to_dict().items()
        }
        return [
            f"{title:<9} " + "  ".join(f"{name}={values[name]}" for name in names) for title, names in _GROUPS.items()
        ]


def preset_names() -> list[str]:
    """The presets that ship, sorted."""
    folder = files("labelmerge.train").joinpath("presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_config(
    preset: str | None = None, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Put a configuration together: the preset's keys (`tiny` by default), then the file's, then the overrides.

    Args:
        preset: a name from `preset_names`.
        file: a TOML file of settings; its `preset` key, if it has one, says what it is based on. A run's config.toml
            is such a file.
        overrides: single settings, as flags give them.

    Raises:
        UsageError: there is no such preset.
        ConfigError: the file can't be read; an unknown key; a value of the wrong type or out of range.
    """
    from_file: dict[str, Any] = {}
    if file is not None:
        try:
            from_file = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"can't be read as TOML ({error})", where=file) from error
        from_file.pop("inputs", None)
        own_preset = from_file.pop("preset", None)
        preset = preset or own_preset
    names = preset_names()
    preset = preset or "tiny"
    if preset not in names:
        raise UsageError(f"unknown preset {preset!r}", fix=did_you_mean(str(preset), names))
    text = files("labelmerge.train").joinpath("presets", f"{preset}.toml").read_text(encoding="utf-8")
    settings = {
        **_checked(tomllib.loads(text), f"{preset}.toml"),
        **_checked(from_file, file),
        **_checked(overrides or {}, None),
    }
    try:
        return TrainConfig(**settings)
    except ConfigError as error:
        raise ConfigError(error.what, where=file) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """One ``key=value`` of the command line; the value is read as TOML, or as it stands where it is a string's.

    Raises:
        UsageError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


def _checked(settings: Mapping[str, Any], where: Path | str | None) -> dict[str, Any]:
    """The settings with each value in its own type; all problems in one ConfigError."""
    types = get_type_hints(TrainConfig)
    known = [setting.name for setting in fields(TrainConfig)]
    out: dict[str, Any] = {}
    problems = []
    for name, value in settings.items():
        if name not in known:
            problems.append(f"unknown setting {name!r} ({did_you_mean(name, known).rstrip('.')})")
            continue
        try:
            out[name] = _cast(value, types[name])
        except TypeError as error:
            problems.append(f"{name} must be {error}, not {value!r}")
    if problems:
        raise ConfigError("; ".join(problems), where=where)
    return out


def _cast(value: Any, kind: Any) -> Any:
    """`value` as a `kind`; TypeError says in words what it should have been."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and whole:
        return value
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if get_origin(kind) is tuple and isinstance(value, str):
        return tuple(item.strip() for item in value.split(","))
    if get_origin(kind) is tuple and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if get_origin(kind) is not None and get_args(kind) == (str, int) and isinstance(value, Mapping):
        return {str(name): _cast(number, int) for name, number in value.items()}
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    words_of_many = "a list of strings" if get_origin(kind) is tuple else "a table of whole numbers"
    raise TypeError(words.get(kind, words_of_many))
