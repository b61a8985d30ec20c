"""The configuration of a run: preset < file < command line.

In a file, a setting of the method stands among the others or in a table of the method's name::

    preset = "segformer-b5"
    steps = 80000
    method = "ssiw"

    [ssiw]
    losses = ["hd", "wd"]

Tables of other methods than the run's are checked and left out, so that a preset can serve several methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from labelmerge.errors import ConfigError, UsageError, did_you_mean
from labelmerge.merge.choices import MERGES
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.parsing import parse_toml
from labelmerge.settings import Setting, grouped, problems, refuse, setting, settings_of, summary, values_of
from labelmerge.train.layers import method_of, parse_layer, settings_class
from labelmerge.train.views import view_problems

DEFAULT_PRESET = "tiny"
_MOST_WORKERS = 1024  # more would sooner fill a machine's memory than help


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes, apart from the bank and the shards.

    Each field's declaration says what it means. `load_config` and `from_dict` make one from flat keys, which include
    the method's own settings.

    Attributes:
        method_settings: an instance of the method's class (`labelmerge.methods.settings`); None stands for its
            defaults.

    Raises:
        ConfigError: an unknown method, or values out of bounds; all problems are named.
    """

    model: str = setting(
        "tiny",
        "The network: `tiny`, `lite`, `segformer-b0` to `segformer-b5`, `hrnet-w48`, `timm:NAME` for any encoder of "
        "timm, or `open_clip:MODEL` for CLIP's image tower.",
        group="model",
        metavar="NAME",
        flag=True,
    )
    pretrained: str = setting(
        "",
        "Encoder weights to start from: `imagenet`, the `hub`'s, a tag of open_clip, a file, or a run of any "
        "labels; random where it is empty.",
        path=True,
        metavar="WHAT",
        flag=True,
    )
    init: str = setting(
        "",
        "For fine-tuning: the run or checkpoint whose weights and temperature to start from, instead of `pretrained` "
        "and `temperature`.",
        path=True,
        metavar="RUN",
        flag=True,
    )
    encoder_only: bool = setting(
        False,
        "Take the encoder alone from `init`, whatever it was trained for; with `tiny` all but the last layer.",
        flag=True,
    )
    freeze: str = setting(
        "nothing",
        "What of the encoder stays as it is: `nothing`, the statistics of its batch `norms`, or the whole `encoder`.",
        choices=("nothing", "norms", "encoder"),
        flag=True,
    )
    method: str = setting(
        "ssiw",
        f"How annotations supervise the network: {', '.join(f'`{name}`' for name in METHOD_SETTINGS)}.",
        metavar="NAME",
        flag=True,
    )

    merge: str = setting(
        "concepts",
        "What counts as one class: labels of the same `concepts`, with the same text (`text`, as in the paper), with "
        "`similar` texts, of the same `name`, each label (`naive`), or each concept of the taxonomy without its "
        "meaning (`table`).",
        group="labels",
        choices=MERGES,
        flag=True,
    )
    # What a taxonomy says is part of the bank's version and of the columns; where it lies doesn't matter.
    taxonomy: str = setting(
        "",
        "A taxonomy that `labelmerge merge` wrote, edited or not: required by `merge = table`; `merge = concepts` uses "
        "it instead of the one that it finds by itself.",
        path=True,
        metavar="FILE",
        incidental=True,
        flag=True,
    )
    labels: str = setting(
        "seen",
        "Which labels become columns of the softmax: those that occur in the shards (`seen`), or `all` of them.",
        choices=("seen", "all"),
    )

    steps: int = setting(1000, "How many batches to train on.", group="batches", minimum=1, flag=True)
    epochs: float = setting(
        0.0,
        "If above 0, replaces `steps`: train on this many times the number of samples in all datasets.",
        metavar="E",
        flag=True,
    )
    batch_size: int = setting(
        18,
        "Samples in a batch, counted over all processes and shared equally among the datasets.",
        minimum=1,
        flag=True,
    )
    eval_sets: bool = setting(
        False, "Also train on evaluation sets (recipes with `role = eval`), which are left out otherwise."
    )
    labelled: Mapping[str, int] = setting(
        {},
        "For single datasets, how many samples keep their labels (chosen at random by `labelled_seed`); the others' "
        "are hidden. Methods that learn from unlabelled images get all images of it as `DATASET/unlabelled`.",
        metavar="DATASET=N,…",
        flag=True,
    )
    labelled_seed: int = setting(0, "Seed of the choice of `labelled`.")
    weights: Mapping[str, int] = setting(
        {}, "Shares of datasets by name, if they should not be equal; 1 for those not listed."
    )
    seed: int = setting(
        0, "Seed of the weights, the order of samples, their views and dropout.", metavar="N", flag=True
    )
    workers: int = setting(
        0,
        "Processes that load batches; 0: the training process loads them itself. The batches are the same.",
        maximum=_MOST_WORKERS,
        incidental=True,
        flag=True,
    )
    cache_mb: int = setting(
        256,
        "Megabytes of memory for decoded samples: datasets that fit (about 8 times the size of their shards) are "
        "decoded only once, and whole: their JPEGs may differ by a few grey levels from ones that are decoded for each "
        "view, smaller where it shrinks them four-fold or more.",
        incidental=True,
    )

    crop: int = setting(64, "Side of a training view, in pixels.", group="views", minimum=1, flag=True)
    short_edge: int = setting(0, "Short edge of an image at scale 1, in pixels; 0 keeps the image's size.", flag=True)
    scale_min: float = setting(0.5, "Smallest random factor of that size.", above=0)
    scale_max: float = setting(2.0, "Largest random factor of that size.", above=0)
    flip: float = setting(0.5, "Probability of the mirror image.", maximum=1)
    colour: float = setting(0.3, "Brightness, contrast and saturation change by factors within 1 ± this.", maximum=1)
    blur: float = setting(0.1, "Probability of a Gaussian blur.", maximum=1)
    jpeg: float = setting(0.1, "Probability of JPEG artefacts.", maximum=1)
    views: Mapping[str, Mapping[str, Any]] = setting(
        {},
        "Views of single datasets that differ from the rest: tables `[views.NAME]` of the settings above, where `crop` "
        "may also be `[height, width]`.",
    )

    optimizer: str = setting("adamw", "The optimiser.", group="optimiser", choices=("adamw", "sgd"))
    lr: float = setting(1e-3, "Learning rate of the encoder after the warm-up.", metavar="RATE", flag=True)
    head_lr_factor: float = setting(1.0, "Learning rate of everything but the encoder, as a multiple of `lr`.")
    layer_decay: float = setting(
        1.0,
        "Learning rate of each layer of the encoder, as a multiple of the next layer's; 1: all alike.",
        above=0,
        maximum=1,
    )
    weight_decay: float = setting(0.01, "Weight decay; norms, biases and the temperature have none.")
    momentum: float = setting(0.9, "Momentum of SGD.")
    warmup: int = setting(0, "Steps in which the rate rises linearly from 0 to `lr`.")
    power: float = setting(0.9, "Exponent of the polynomial decay to 0 that follows.")
    clip: float = setting(0.0, "Largest norm of the gradient, which is clipped to it; 0: no clipping.")
    ema: float = setting(
        0.0,
        "Decay of a moving average of the weights, such as 0.999, which is then used for evaluation; 0: no average.",
        minimum=0,
        below=1,
        metavar="DECAY",
        flag=True,
    )

    accumulate: int = setting(
        1,
        "Number of pieces in which each process runs its part of a batch: the same step in less memory.",
        group="machine",
        minimum=1,
        incidental=True,
        flag=True,
    )
    bf16: bool = setting(True, "bfloat16 autocast of the network on a GPU; the losses are always float32.")
    channels_last: bool = setting(
        False,
        "Keep images and weights channels-last in memory, which GPUs convolve faster.",
        incidental=True,
        flag=True,
    )
    compile: bool = setting(False, "Run the network through `torch.compile`.", incidental=True, flag=True)
    cuda_graphs: bool = setting(
        False,
        "Record the network's forward and backward pass once as CUDA graphs and launch them whole, where launching "
        "single kernels is what a GPU waits for. For one GPU, whole batches, and views of one size.",
        incidental=True,
        flag=True,
    )
    recompute: bool = setting(
        False,
        "Recompute the inside of the encoder's blocks in the backward pass instead of keeping it: a third more work, "
        "far less memory (SegFormer, `timm:`).",
        incidental=True,
        flag=True,
    )

    log_every: int = setting(10, "Steps between lines of log.jsonl.", group="output", minimum=1, incidental=True)
    checkpoint_every: int = setting(
        500, "Steps between checkpoints; there is always one at the end.", minimum=1, incidental=True, flag=True
    )
    keep_checkpoints: int = setting(2, "How many of the newest checkpoints to keep.", minimum=1, incidental=True)
    tensorboard: bool = setting(
        False,
        "Also log for TensorBoard, if it is installed (`pip install tensorboard`).",
        incidental=True,
        flag=True,
    )

    method_settings: Any = None

    def __post_init__(self) -> None:
        kind = settings_class(self.method)
        if self.method_settings is None:
            object.__setattr__(self, "method_settings", kind())
        wrong = problems(self)
        if not isinstance(self.method_settings, kind):
            wrong.append(f"{type(self.method_settings).__name__} are not the settings of the method {self.method}")
        wrong += [
            f"labelled.{name} must be at least 1, not {count}" for name, count in self.labelled.items() if count < 1
        ]
        if self.accumulate > self.batch_size:
            wrong.append(f"accumulate {self.accumulate} makes more pieces than the batch has samples")
        if self.scale_min > self.scale_max:
            wrong.append(f"scale_min {self.scale_min} must not be above scale_max {self.scale_max}")
        wrong += view_problems(self.views, settings_of(TrainConfig), self)
        refuse(wrong)

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: Path | str | None = None) -> TrainConfig:
        """The configuration of flat keys, as `to_dict` gives them; what is missing has its default.

        Raises:
            ConfigError: unknown keys, values of the wrong type or out of bounds; all problems are named.
        """
        method = method_of([(values, where)], TrainConfig.method)
        return _build(method, parse_layer(values, method, settings_of(TrainConfig), where), where)

    def changed(self, **values: Any) -> TrainConfig:
        """A copy with other values of some settings, the method's among them. Raises ConfigError."""
        return self.from_dict({**self.to_dict(), **values})

    def with_steps_for(self, samples: int) -> TrainConfig:
        """The same where `epochs` is 0, else with the `steps` that so many epochs of `samples` samples have."""
        if not self.epochs:
            return self
        return replace(self, steps=max(1, math.ceil(self.epochs * samples / self.batch_size)))

    def to_dict(self) -> dict[str, Any]:
        """All settings as TOML knows them, the method's among them."""
        return {**values_of(self), **values_of(self.method_settings)}

    def summary(self) -> list[str]:
        """All settings in a few lines, grouped, for people."""
        return summary(settings_by_group((self.method,)), self.to_dict())


def settings_by_group(methods: tuple[str, ...] | None = None) -> dict[str, list[Setting]]:
    """All settings of training under their headings; a method's stand under its name, after the model's.

    Args:
        methods: those whose settings are wanted; all by default.
    """
    own = {name: list(settings_of(METHOD_SETTINGS[name])) for name in methods or METHOD_SETTINGS}
    groups: dict[str, list[Setting]] = {}
    for title, declared in grouped(settings_of(TrainConfig)).items():
        groups[title] = declared
        if any(each.name == "method" for each in declared):
            groups |= own
    return groups


def heading(group: str) -> str:
    """The heading of a group of `settings_by_group`."""
    return f"Method {group}" if group in METHOD_SETTINGS else group.capitalize()


def all_settings() -> list[Setting]:
    """Every setting that a configuration may have, whatever its method."""
    return [each for declared in settings_by_group().values() for each in declared]


INCIDENTAL = frozenset(each.name for each in all_settings() if each.incidental)
"""The settings that may differ when a run goes on (`labelmerge.settings.Setting.incidental`)."""


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
        ConfigError: the file can't be read; unknown keys, values of the wrong type or out of bounds: all problems of
            the file, or of the overrides, are named.
    """
    from_file: dict[str, Any] = {}
    if file is not None:
        try:
            from_file = parse_toml(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"can't be read as TOML ({error})", where=file) from error
        from_file.pop("inputs", None)
        own_preset = from_file.pop("preset", None)
        preset = preset or own_preset
    names = preset_names()
    preset = preset or DEFAULT_PRESET
    if preset not in names:
        raise UsageError(f"unknown preset {preset!r}", fix=did_you_mean(str(preset), names))
    text = files("labelmerge.train").joinpath("presets", f"{preset}.toml").read_text(encoding="utf-8")
    layers = [(parse_toml(text), f"{preset}.toml"), (from_file, file), (overrides or {}, None)]
    method = method_of(layers, TrainConfig.method)
    values: dict[str, Any] = {}
    for layer, where in layers:
        values |= parse_layer(layer, method, settings_of(TrainConfig), where)
    return _build(method, values, file)


def _build(method: str, values: Mapping[str, Any], where: Path | str | None) -> TrainConfig:
    kind = METHOD_SETTINGS[method]
    own = {each.name for each in settings_of(kind)}
    try:
        method_settings = kind(**{name: value for name, value in values.items() if name in own})
        return TrainConfig(
            **{name: value for name, value in values.items() if name not in own}, method_settings=method_settings
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=where, fix=error.fix) from None
