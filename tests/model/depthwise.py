"""Run by test_depthwise.py under ``TRITON_INTERPRET=1``: the kernel on the CPU, beside torch's own in float64.

Prints the relative errors of the result and of all gradients for some sizes, as one JSON object.
"""

from __future__ import annotations

import json

import torch
from torch.nn import functional as F

from labelmerge.model.depthwise import depthwise_gelu

SIZES = {"odd": (2, 5, 7, 96), "one row": (1, 1, 40, 8), "several programs": (1, 17, 20, 72)}


def off_by(size: tuple[int, int, int, int]) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    channels = size[3]
    shapes = (size, (channels, 1, 3, 3), (channels,))
    given = [torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes]
    upstream = torch.randn(*size, generator=generator)
    out = depthwise_gelu(*given)
    ours = [out, *torch.autograd.grad((out * upstream).sum(), given)]
    x, weight, bias = (each.detach().double().requires_grad_() for each in given)
    exact = F.gelu(F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=channels)).permute(0, 2, 3, 1)
    wanted = [exact, *torch.autograd.grad((exact * upstream).sum(), (x, weight, bias))]
    return [float((a - b).norm() / b.norm()) for a, b in zip(ours, wanted, strict=True)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: off_by(size) for name, size in SIZES.items()}))
