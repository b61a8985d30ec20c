"""Run by test_fused_loss.py under ``TRITON_INTERPRET=1``: the fused kernel, on the CPU, beside the literal loss.

Prints for each case of `CASES` how far its losses and gradients are off, as one JSON object.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from labelmerge.losses import pixel_cosine_loss, trimmed_pixel_cosine_loss


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
    channels_last: bool = False
    trimmed: bool = False


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
    "subsets": Case((3, 3), (12, 12), batch=3, labels=9, subsets=True),
    "cold": Case((3, 3), (12, 12), tau=1e-3),
    "channels last": Case((3, 4), (12, 16), channels=70, channels_last=True),
    "bfloat16": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16),
    "bfloat16, channels last": Case((3, 4), (12, 16), channels=16, dtype=torch.bfloat16, channels_last=True),
    "float16": Case((3, 4), (12, 16), channels=16, dtype=torch.float16),
}


def off_by(case: Case) -> dict[str, float]:
    """The largest error of a pixel's loss over 1 + loss, and the relative errors of the gradients of a weighted sum."""
    reference = runpy.run_path(str(Path(__file__).with_name("reference.py")))
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    v = torch.randn(case.batch, case.channels, *case.low, generator=generator).mul(3).to(case.dtype)
    v = v.contiguous(memory_format=layout).requires_grad_()
    labels = F.normalize(torch.randn(case.labels, case.channels, generator=generator), dim=1).requires_grad_()
    tau = torch.tensor(case.tau, requires_grad=True)
    weights = torch.rand(case.batch, *case.size, generator=generator)
    allowed = None
    if case.subsets:
        allowed = torch.rand(case.batch, case.labels, generator=generator) < 0.5
        allowed[:, 0] = True
        chosen = torch.multinomial(allowed.float(), case.size[0] * case.size[1], replacement=True, generator=generator)
        targets = chosen.view(case.batch, *case.size)
    else:
        targets = torch.randint(case.labels, (case.batch, *case.size), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < case.ignored] = case.ignore

    losses = pixel_cosine_loss(
        v, labels, targets.to(case.targets), tau, case.ignore, allowed=allowed, reduction="none", kernel="fused"
    )
    ours = torch.autograd.grad((losses * weights).sum(), (v, labels, tau))
    exact = [x.detach().double().requires_grad_() for x in (v, labels, tau)]
    literal = reference["pixel_losses"](exact[0], exact[1], targets, exact[2], case.ignore, allowed)
    wanted = torch.autograd.grad((literal * weights).sum(), exact)
    found = {"losses": float(((losses - literal).abs() / (1 + literal)).max().detach())}
    for name, mine, theirs in zip(("v", "labels", "tau"), ours, wanted, strict=True):
        # Zero where there is nothing to learn (one label); then the error is taken as it is.
        found[name] = float((mine - theirs).norm() / theirs.norm().clamp(min=1e-3))
    if case.trimmed:
        loss = trimmed_pixel_cosine_loss(v, labels, targets, tau, case.ignore, kernel="fused")
        literal = reference["trimmed_loss"](exact[0], exact[1], targets, exact[2], case.ignore)
        found["trimmed"] = float(((loss - literal).abs() / (1 + literal)).detach())
    return found


def odd_targets() -> dict[str, float]:
    """The losses of a label that its image is not allowed, and of a target that is no class; then their gradients."""
    v = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.zeros(1, 8, 8, dtype=torch.long)
    targets[0, 0, 0], targets[0, 7, 7] = 1, 9
    allowed = torch.tensor([[True, False, True]])
    losses = pixel_cosine_loss(
        v, torch.eye(4)[:3], targets, 0.1, allowed=allowed, reduction="none", kernel="fused"
    ).flatten()
    (grad,) = torch.autograd.grad(losses[1:-1].sum(), v)
    losses = losses.detach()
    return {
        "not allowed": float(losses[0]),
        "no class": float(losses[-1]),
        "others": float(losses[1:-1].sum()),
        "gradient": float(grad.norm()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"odd targets": odd_targets()} | {name: off_by(case) for name, case in CASES.items()}))
