"""The ways to turn pixel embeddings into losses. A method is three functions; the loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.loading.mixture import Batch
from labelmerge.methods.ssiw.losses import ssiw_annotation_types, ssiw_counts, ssiw_sums
from labelmerge.methods.ssiw.teacher import Teacher
from labelmerge.train.config import TrainConfig


@dataclass(frozen=True)
class Method:
    """A way to supervise.

    Attributes:
        sums: (batch, embeddings, labels, tau, allowed, teacher, D, config) → the weighted losses summed over the pixels
            or boxes of each dataset, float [D]; see `ssiw.ssiw_sums`.
        counts: (batch, D, config) → how many pixels or boxes those are, int64 [D]. Known before the model runs.
        annotation_types: (config) → for each loss by name, the annotation type it is for.
    """

    sums: Callable[[Batch, Tensor, Tensor, Tensor, Tensor | None, Teacher, int, TrainConfig], Tensor]
    counts: Callable[[Batch, int, TrainConfig], Tensor]
    annotation_types: Callable[[TrainConfig], dict[str, str]]


METHODS = {"ssiw": Method(ssiw_sums, ssiw_counts, ssiw_annotation_types)}


def find_method(name: str) -> Method:
    """The method of this name; raises ConfigError."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}", fix=did_you_mean(name, METHODS))
    return METHODS[name]
