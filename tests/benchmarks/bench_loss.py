"""The exact pixel loss side by side with the literal one: time and peak memory of forward + backward.

    python tests/benchmarks/bench_loss.py [--batch B] [--channels C] [--size PIXELS] [--labels N] [--device cuda]

Each figure comes from a process of its own, on float32 input. Memory is what the loss adds to what was there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.losses import pixel_cosine_loss

LITERAL = Path(__file__).resolve().parents[1] / "losses" / "reference.py"


def measure(literal: bool, options: argparse.Namespace) -> tuple[float, float, float]:
    """(seconds, MiB, the loss) of one implementation."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    low = -(-options.size // options.stride)
    v = torch.randn(options.batch, options.channels, low, low, generator=generator).to(device).requires_grad_()
    labels = F.normalize(torch.randn(options.labels, options.channels, generator=generator), dim=1).to(device)
    targets = torch.randint(options.labels, (options.batch, options.size, options.size), generator=generator).to(device)
    tau = torch.tensor(0.07, device=device, requires_grad=True)
    loss: Callable[..., Tensor] = runpy.run_path(str(LITERAL))["pixel_loss"] if literal else pixel_cosine_loss

    def once() -> float:
        start = time.perf_counter()
        value = loss(v, labels, targets, tau, 65535)
        torch.autograd.grad(value, (v, tau))
        value.item()  # waits for a GPU
        return time.perf_counter() - start

    def peak() -> float:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    before = peak()
    once()
    memory = peak() - before
    seconds = statistics.median(once() for _ in range(options.repeat))
    return seconds, memory, loss(v, labels, targets, tau, 65535).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("batch", 2),
        ("channels", 512),
        ("size", 256),
        ("stride", 4),
        ("labels", 150),
        ("repeat", 3),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--device", default="cpu", help="default cpu")
    options = parser.parse_args()
    rows = []
    for literal in (True, False):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            rows.append(process.submit(measure, literal, options).result())
    print(
        f"B={options.batch} C={options.channels} H=W={options.size} stride={options.stride} N={options.labels} "
        f"{options.device}, {options.threads} threads"
    )
    print(f"{'':10}{'seconds':>10}{'MiB':>10}{'loss':>14}")
    for name, (seconds, memory, value) in zip(("literal", "exact"), rows, strict=True):
        print(f"{name:10}{seconds:10.3f}{memory:10.0f}{value:14.7f}")
    print(f"{'ratio':10}{rows[0][0] / rows[1][0]:10.1f}{rows[0][1] / rows[1][1]:10.1f}")


if __name__ == "__main__":
    main()
