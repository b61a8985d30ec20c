"""The exact pixel loss side by side with the literal one: time and peak memory of forward + backward.

    python tests/benchmarks/bench_loss.py [--batch B] [--channels C] [--size PIXELS] [--labels N] [--dtype bfloat16]
    python tests/benchmarks/bench_loss.py --device cuda --batch 16 --size 640 --labels 238 --dtype bfloat16

Each row comes from a process of its own. Time is the processor's on a CPU (it may be shared with other work), the
device's on CUDA: the median of --repeat. Memory is the peak of what the loss adds to its inputs. The literal loss is
given bfloat16 as a user would: under autocast. On CUDA the last columns compare with the memory-traffic floor: v is
read forward and backward, its gradient written, and the targets read twice, at the speed of a copy on this device.
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
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.losses import pixel_cosine_loss

LITERAL = Path(__file__).resolve().parents[1] / "losses" / "reference.py"


def cuda_milliseconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def measure(name: Literal["literal", "chunked", "fused"], options: argparse.Namespace) -> tuple[float, float, float]:
    """(milliseconds, MiB, the loss) of the literal, the chunked or the fused loss."""
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    low = -(-options.size // options.stride)
    v = torch.randn(options.batch, options.channels, low, low, generator=generator)
    v = v.to(device, getattr(torch, options.dtype)).requires_grad_()
    labels = F.normalize(torch.randn(options.labels, options.channels, generator=generator), dim=1).to(device)
    # Squares of 16 pixels with one label, as masks have areas.
    side = -(-options.size // 16)
    targets = torch.randint(options.labels, (options.batch, side, side), generator=generator)
    targets = targets.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, : options.size, : options.size]
    targets = targets.contiguous().to(device)
    tau = torch.tensor(0.07, device=device, requires_grad=True)
    loss: Callable[..., Tensor]
    if name == "literal":
        loss = runpy.run_path(str(LITERAL))["pixel_loss"]
    else:
        loss = partial(pixel_cosine_loss, kernel=name)

    def once() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "literal" and v.dtype == torch.bfloat16):
            value = loss(v, labels, targets, tau, 65535)
        torch.autograd.grad(value, (v, tau))
        return value.detach()

    def milliseconds() -> float:
        if cuda:
            return cuda_milliseconds(once)
        start = time.process_time()
        once()
        return (time.process_time() - start) * 1e3

    def peak() -> float:
        if cuda:
            return torch.cuda.max_memory_allocated(device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    if cuda:
        once()  # compiles, and makes cuBLAS's workspace
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) / 2**20 if cuda else peak()
    value = once().item()
    memory = peak() - before
    for _ in range(5 if cuda else 0):
        once()
    return statistics.median(milliseconds() for _ in range(options.repeat)), memory, value


def floor_milliseconds(options: argparse.Namespace) -> float:
    """What reading v twice, writing its gradient and reading int64 targets twice takes at the speed of a copy."""
    low = -(-options.size // options.stride)
    bytes_of_v: int = options.batch * options.channels * low**2 * getattr(torch, options.dtype).itemsize
    bytes_of_targets: int = options.batch * options.size**2 * 8
    traffic = 3 * bytes_of_v + 2 * bytes_of_targets
    source = torch.empty(2**30, dtype=torch.uint8, device=options.device)
    copy = torch.empty_like(source)
    took = statistics.median(cuda_milliseconds(lambda: copy.copy_(source)) for _ in range(20))
    speed = 2 * 2**30 / took  # bytes per millisecond, read and written
    print(f"a copy moves {speed / 1e9:.2f} TB/s; the floor is {traffic / 1e6:.0f} MB, {traffic / speed:.3f} ms")
    return traffic / speed


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
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of v, default float32")
    options = parser.parse_args()
    cuda = torch.device(options.device).type == "cuda"
    print(
        f"B={options.batch} C={options.channels} H=W={options.size} stride={options.stride} N={options.labels} "
        f"{options.dtype}, {torch.cuda.get_device_name(options.device) if cuda else f'CPU, {options.threads} threads'}"
    )
    floor = floor_milliseconds(options) if cuda else None
    print(f"{'':8}{'ms':>11}{'MiB':>9}{'loss':>13}{'faster':>9}{'smaller':>9}" + f"{'/ floor':>9}" * cuda)
    literal = None
    names: tuple[Literal["literal", "chunked", "fused"], ...] = ("literal", "chunked", "fused")
    for name in names if cuda else names[:2]:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            time_, memory, value = process.submit(measure, name, options).result()
        literal = literal or (time_, memory)
        row = f"{name:8}{time_:11.2f}{memory:9.0f}{value:13.7f}{literal[0] / time_:9.1f}{literal[1] / memory:9.1f}"
        print(row + (f"{time_ / floor:9.1f}" if floor else ""), flush=True)


if __name__ == "__main__":
    main()
