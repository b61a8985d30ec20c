"""The optimiser, and the learning rate of every step."""

from __future__ import annotations

import torch

from labelmerge.methods.method import Learner
from labelmerge.train.config import TrainConfig


def make_optimizer(learner: Learner, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that `config` asks for; each parameter group holds its highest learning rate as ``peak_lr``."""
    groups = learner.parameter_groups(config.lr, config.weight_decay, config.head_lr_factor)
    for group in groups:
        group["peak_lr"] = group["lr"]
    # On a GPU all of a step in one kernel: a thousand small tensors keep the processor busy for milliseconds otherwise.
    fused = next(learner.parameters()).is_cuda or None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=config.lr, fused=fused)


def schedule_factor(step: int, config: TrainConfig) -> float:
    """The learning rate of `step` as a share of its peak: a linear warm-up, then polynomial decay towards 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    return float((1 - (step - config.warmup) / (config.steps - config.warmup)) ** config.power)
