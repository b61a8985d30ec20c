"""Run by test_fused_loss.py under ``TRITON_INTERPRET=1``: the fused kernel, on the CPU, beside the literal loss.

Prints for each case of `CASES` how far its losses and gradients are off, as one JSON object.
"""

from __future__ import annotations

import importlib
import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from labelmerge.losses import LabelTable, pixel_cosine_loss, trimmed_pixel_cosine_loss


@dataclass(frozen=True)
class Case:
    low: tuple[int, int]
    size: tuple[int, int]
    batch: int = 2
    channels: int = 5
    labels: int = 6
    dtype: torch.dtype = torch.float32
    targets: torch.dtype = torch.int64
    tau: float = 0.07
    ignore: int = 255
    ignored: float = 0.25  # the share of pixels without a label
    subsets: bool = False
    unannotated: bool = False  # some columns do not compete in some images
    table: str = ""  # "sets" or "soft", at random, of 4 labels; "alone", where nothing competes; "own", one column each
    present: int = 0  # how many of the labels occur, the first ones; 0: all
    signed: bool = False  # the losses' weights are of both signs, and some 0
    channels_last: bool = False
    trimmed: bool = False
    length: float = 3.0  # of the embeddings' numbers
    bare: bool = False  # the first image has no label


CASES = {
    "x4": Case((3, 4), (12, 16), trimmed=True),
    "odd sizes": Case((4, 5), (15, 17), labels=9, targets=torch.uint8),
    "crop 713": Case((5, 5), (18, 19), batch=1, labels=3),  # 713 / 179 = 3.98: gaps of 3 and of 4 pixels
    "x5": Case((2, 3), (10, 15), batch=1),
    "x2, hot": Case((4, 5), (8, 10), tau=100.0, ignore=-1, targets=torch.int16),
    "same size": Case((3, 4), (3, 4)),
    "smaller": Case((7, 8), (4, 3), labels=3),
    "one cell": Case((1, 1), (9, 7), labels=3),
    "several programs across": Case((1, 40), (2, 80), batch=1, labels=5),
    "several programs down": Case((18, 2), (36, 4), batch=1, labels=5),
    "many labels": Case((1, 1), (2, 3), batch=1, labels=301, ignore=65535, targets=torch.uint16),
    "one label": Case((3, 3), (12, 12), labels=1),
    "nothing labelled": Case((3, 3), (12, 12), ignored=1),
    "one column": Case((5, 1), (20, 4), labels=8),
    "one row": Case((1, 5), (4, 20), labels=4),
    "one pixel": Case((1, 1), (1, 1), batch=1, labels=12),
    "an image without labels": Case((3, 3), (12, 12), bare=True, trimmed=True),
    "an image without labels, sets": Case((3, 3), (12, 12), bare=True, table="sets", trimmed=True),
    "long": Case((3, 4), (12, 16), length=1e6),
    "short": Case((3, 4), (12, 16), length=1e-6),
    "long, bfloat16": Case((3, 4), (12, 16), channels=16, length=1e6, dtype=torch.bfloat16, table="soft"),
    "subsets": Case((3, 3), (12, 12), batch=3, labels=9, subsets=True),
    "cold": Case((3, 3), (12, 12), tau=1e-3),
    "channels last": Case((3, 4), (12, 16), channels=70, channels_last=True),
    "bfloat16": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16),
    "bfloat16, channels last": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16, channels_last=True),
    "float16": Case((3, 4), (12, 16), channels=16, dtype=torch.float16),
    "sets": Case((3, 4), (12, 16), labels=37, table="sets", trimmed=True),
    "soft": Case((3, 4), (12, 16), labels=9, table="soft", trimmed=True),
    "sets, odd sizes": Case((4, 5), (15, 17), labels=9, targets=torch.uint8, table="sets"),
    "soft, odd sizes": Case((4, 5), (15, 17), labels=18, targets=torch.int16, ignore=-1, table="soft"),
    "sets, one cell": Case((1, 1), (9, 7), labels=3, table="sets"),
    "soft, smaller": Case((7, 8), (4, 3), labels=3, table="soft"),
    "sets, several programs": Case((18, 2), (36, 4), batch=1, labels=5, table="sets"),
    "sets, one column": Case((3, 3), (12, 12), labels=1, table="sets"),
    "sets, hot": Case((3, 3), (12, 12), tau=100.0, table="sets"),
    "sets, cold": Case((3, 3), (12, 12), tau=1e-3, table="sets"),
    "soft, cold": Case((3, 3), (12, 12), tau=1e-3, table="soft"),
    "nothing labelled, sets": Case((3, 3), (12, 12), ignored=1, table="sets"),
    "nothing competes": Case((3, 3), (12, 12), table="alone"),
    "sets within subsets": Case((3, 3), (12, 12), batch=3, labels=9, subsets=True, table="sets"),
    "soft within subsets": Case((3, 3), (12, 12), batch=3, labels=9, subsets=True, table="soft"),
    "sets, not all annotated": Case((3, 4), (12, 16), labels=9, unannotated=True, table="sets", trimmed=True),
    "soft, not all annotated": Case((3, 4), (12, 16), labels=9, unannotated=True, table="soft", trimmed=True),
    "nothing annotated": Case((3, 3), (12, 12), unannotated=True, table="alone"),
    "areas": Case((3, 4), (12, 16), labels=43, present=3),
    "areas, both signs": Case((3, 4), (12, 16), labels=43, present=3, signed=True),
    "areas, bfloat16": Case((3, 4), (12, 16), labels=43, channels=16, dtype=torch.bfloat16, present=2),
    "areas within subsets": Case((3, 3), (12, 12), batch=3, labels=21, present=3, subsets=True),
    "areas, cold": Case((3, 4), (12, 16), labels=43, present=3, tau=1e-3),
    "areas, own": Case((3, 4), (12, 16), labels=43, table="own"),
    "areas, own, both signs": Case((3, 4), (12, 16), labels=43, table="own", signed=True),
    "opposites": Case((3, 4), (12, 16), channels=2, labels=9, tau=0.034),  # logits as far apart as it stays calm
    "opposites, cold": Case((3, 4), (12, 16), channels=2, labels=9, tau=0.025),
    "opposites, sets": Case((3, 4), (12, 16), channels=2, labels=9, tau=0.034, table="sets"),
    "sets, bfloat16": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16, table="sets"),
    "soft, bfloat16": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16, table="soft"),
}


def off_by(case: Case) -> dict[str, float]:
    """The largest error of a pixel's loss over 1 + loss, and the relative errors of the gradients of a weighted sum."""
    reference = runpy.run_path(str(Path(__file__).with_name("reference.py")))
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    v = torch.randn(case.batch, case.channels, *case.low, generator=generator).mul(case.length).to(case.dtype)
    v = v.contiguous(memory_format=layout).requires_grad_()
    labels = F.normalize(torch.randn(case.labels, case.channels, generator=generator), dim=1).requires_grad_()
    tau = torch.tensor(case.tau, requires_grad=True)
    weights = torch.rand(case.batch, *case.size, generator=generator)
    if case.signed:
        weights = (weights - 0.4).round(decimals=1)
    table: LabelTable | None = None
    if case.table:
        table = random = reference["random_table"](4, case.labels, soft=case.table == "soft", seed=0)
        if case.table == "alone":
            table = LabelTable(random.positive, torch.zeros_like(random.negative))
        if case.table == "own":
            table = LabelTable(torch.eye(4, case.labels, dtype=torch.bool), random.negative)
    allowed, classes = None, case.labels if table is None else 4
    # Which labels an image may have.
    reached = (torch.arange(classes) < (case.present or classes)).repeat(case.batch, 1)
    if case.subsets:
        allowed = torch.rand(case.batch, case.labels, generator=generator) < 0.5
        allowed[:, 0] = True
        if table is None:
            reached = reached & allowed
        else:
            allowed[0] |= table.positive[0]
            allowed[1:] |= table.positive[1]
            hits = table.positive & allowed[:, None]
            reached = hits.any(2) if case.table == "sets" else (hits == table.positive).all(2)
    chosen = torch.multinomial(reached.float(), case.size[0] * case.size[1], replacement=True, generator=generator)
    targets = chosen.view(case.batch, *case.size)
    targets[torch.rand(targets.shape, generator=generator) < case.ignored] = case.ignore
    if case.bare:
        targets[0] = case.ignore

    competing = torch.rand(case.batch, case.labels, generator=generator) < 0.5 if case.unannotated else None

    more: dict[str, Any] = {"allowed": allowed, "competing": competing, "table": table, "kernel": "fused"}
    losses = pixel_cosine_loss(v, labels, targets.to(case.targets), tau, case.ignore, reduction="none", **more)
    ours = torch.autograd.grad((losses * weights).sum(), (v, labels, tau))
    exact = [x.detach().double().requires_grad_() for x in (v, labels, tau)]
    literal = reference["pixel_losses"](exact[0], exact[1], targets, exact[2], case.ignore, allowed, table, competing)
    wanted = torch.autograd.grad((literal * weights).sum(), exact)
    found = {"losses": float(((losses - literal).abs() / (1 + literal)).max().detach())}
    for name, mine, theirs in zip(("v", "labels", "tau"), ours, wanted, strict=True):
        # Zero where there is nothing to learn (one label); then the error is taken as it is.
        found[name] = float((mine - theirs).norm() / theirs.norm().clamp(min=1e-3))
    if case.trimmed:
        loss = trimmed_pixel_cosine_loss(v, labels, targets, tau, case.ignore, **more)
        literal = reference["trimmed_loss"](
            exact[0], exact[1], targets, exact[2], case.ignore, table=table, competing=competing
        )
        found["trimmed"] = float(((loss - literal).abs() / (1 + literal)).detach())
    return found


def odd_targets(table: LabelTable | None = None) -> dict[str, float]:
    """The losses of a label that its image is not allowed, and of a target that is no class; then their gradients."""
    v = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.zeros(1, 8, 8, dtype=torch.long)
    targets[0, 0, 0], targets[0, 7, 7] = 1, 9
    allowed = torch.tensor([[True, False, True]])
    losses = pixel_cosine_loss(
        v, torch.eye(4)[:3], targets, 0.1, allowed=allowed, table=table, reduction="none", kernel="fused"
    ).flatten()
    (grad,) = torch.autograd.grad(losses[1:-1].sum(), v)
    losses = losses.detach()
    return {
        "not allowed": float(losses[0]),
        "no class": float(losses[-1]),
        "others": float(losses[1:-1].sum()),
        "gradient": float(grad.norm()),
    }


def let_loops_count() -> None:
    """Mend the interpreter of Triton 3.6 for NumPy 2.4 and later.

    It counts a loop by ``int`` of arrays of one element, which NumPy has stopped converting.
    """
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)  # undone after each kernel, and this with it
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch_and_mend


if __name__ == "__main__":
    torch.set_num_threads(1)
    let_loops_count()
    own = torch.eye(3, dtype=torch.bool)
    odd = {
        "odd targets": odd_targets(),
        "odd targets, sets": odd_targets(LabelTable(own, torch.ones(3, 3))),
        "odd targets, soft": odd_targets(LabelTable(own, torch.ones(3, 3), torch.eye(3))),
    }
    print(json.dumps(odd | {name: off_by(case) for name, case in CASES.items()}))
