"""What a new run begins with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError
from labelmerge.model.build import SegmentationModel, build_model
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.model.temperature import Temperature
from labelmerge.train.config import TrainConfig

_log = logging.getLogger(__name__)


def begin(config: TrainConfig, bank: Bank) -> tuple[SegmentationModel, Temperature, dict[str, Any] | None]:
    """A model and its temperature: new, or those of the run or checkpoint `config.init`.

    Returns:
        The two, and what meta.json says about the checkpoint they are from: its path, hash and step.

    Raises:
        CheckpointError: there is no such checkpoint.
        ConfigError: it is of another model, or of vectors of another dimension.
    """
    if not config.init:
        model = build_model(config.model, bank.dim, pretrained=config.pretrained or None)
        return model, Temperature(config.temperature), None
    given = load_checkpoint(Path(config.init))
    if given.model.name != config.model:
        raise ConfigError(
            f"is a {given.model.name}, and this run trains a {config.model}",
            where=given.folder,
            fix=f"Use its preset or --set model={given.model.name}, or another --init",
        )
    if given.model.embedding_dim != bank.dim:
        raise ConfigError(
            f"its embeddings have {given.model.embedding_dim} dimensions, and the labels' vectors {bank.dim}",
            where=given.folder,
            fix=f"Use a bank of the encoder that it was trained with ({given.meta.get('encoder')}), or another --init",
        )
    if given.meta.get("encoder") != bank.encoder:
        _log.warning(
            "%s was trained with vectors of %s, and goes on with those of %s: equal labels lie elsewhere",
            given.folder, given.meta.get("encoder"), bank.encoder,
        )  # fmt: skip
    _log.info("beginning with the weights of %s", given.folder)
    return given.model, given.temperature, {"checkpoint": str(given.folder), "hash": given.hash, "step": given.step}
