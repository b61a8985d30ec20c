"""How something was measured: what its figures depend on, and the command that measures it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from labelmerge.bank.bank import Bank
from labelmerge.evaluate.depths import DepthLimits
from labelmerge.evaluate.questions import Questions
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.restore import Trained
from labelmerge.model.checkpoint import Checkpoint
from labelmerge.model.views import Views
from labelmerge.shardset.samples import Samples
from labelmerge.urls import path_or_url

_BY = {
    "text": "its own row of the bank",
    "concepts": "the columns of the run that it stands for, or its text, by what the run reaches",
}


def protocol(
    trained: Trained,
    asked: Questions,
    views: Views,
    bank: Bank,
    split: str | None,
    limit: int | None,
    limits: DepthLimits,
) -> dict[str, Any]:
    """Everything that the figures depend on, as ``protocol`` of results.json has it."""
    checkpoint, device = trained.checkpoint, trained.device
    how = _OF_DEPTHS if trained.learner.answers == "depth" else _of_labels(asked)
    return {
        **views.to_json(),
        "resize": "bilinear, antialiased; short_edge 0 is the image's own size",
        **(asked.predictor.protocol() if asked.predictor is not None else {}),
        **how,
        **limits.to_json(),
        "split": split,
        "limit": limit,
        "checkpoint": {
            "hash": checkpoint.hash,
            "step": checkpoint.step,
            "model": checkpoint.model_name,
            "merge": checkpoint.meta.get("merge"),
            **_few_labels(checkpoint),
        },
        "bank": {
            "version": bank.version,
            "content_sha256": bank.content_hash,
            "encoder": bank.encoder,
            "identity": dict(bank.identity),
            "prompt": bank.prompt,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
    }


def _few_labels(checkpoint: Checkpoint) -> dict[str, Any]:
    """Whose labels were hidden from training, and which datasets it knew by their images alone; {} where there were
    none."""
    known = Vocabulary.from_meta(checkpoint.meta)
    with_labels = {name for name, _ in known.keys}
    unlabelled = [name for name in known.datasets if name not in with_labels]
    hidden = checkpoint.config.get("labelled")
    return {
        **({"labelled": hidden, "labelled_seed": checkpoint.config.get("labelled_seed", 0)} if hidden else {}),
        **({"unlabelled": unlabelled} if unlabelled else {}),
    }


def _of_labels(asked: Questions) -> dict[str, Any]:
    return {
        "resolution": "measured at the size of the mask",
        "by": asked.by,
        "labels": f"all classes of the set's own label space, each by {_BY[asked.by]}",
        "relations": asked.taxonomy,
        "ignored": "pixels without a label in the mask, whatever is predicted there",
        "miou": "mean over the classes with a labelled or a predicted pixel; predicted but never labelled counts as 0",
    }


_OF_DEPTHS = {
    "resolution": "measured at the size of the image in the shards",
    "alignment": "each image by the scale, 0 or more, and the shift of the least squared error of its known depths",
    "abs_rel": "mean over an image's known pixels of |prediction - depth| / depth, then over images",
    "delta": "share of an image's known pixels within a factor of 1.25, its square, its cube; then over images",
    "ignored": "pixels without a known depth, and images without any",
}


def command(
    checkpoint: Path,
    shards: Sequence[Path],
    bank: Path | None,
    out: Path,
    datasets: Sequence[Samples],
    views: Views,
    others: Mapping[str, object],
    *,
    mixed: bool,
    tasks: Sequence[str],
) -> str:
    """The command that does it again."""
    words: list[object] = ["labelmerge", "eval", "--checkpoint", checkpoint]
    words += ["--shards", *shards] if shards else []
    for data in datasets:
        words += ["--dataset", data.source["recipe"], "--root", data.source["root"]]
    words += ["--bank", bank] if bank is not None else []
    words += ["--out", out]
    words += [] if views.short_edge is None else ["--short-edge", views.short_edge]
    words += ["--scales", ",".join(f"{s:g}" for s in views.scales)]
    words += ["--flip"] if views.flip else []
    words += ["--window", views.window, "--window-stride", views.window_stride] if views.window else []
    words += [word for name, value in others.items() if value is not None for word in (f"--{name}", value)]
    words += ["--mixed"] if mixed else []
    words += [word for task in tasks for word in ("--task", task)]
    return shlex.join(path_or_url(word) if isinstance(word, Path) else str(word) for word in words)
