"""The exact pixel loss side by side with the literal one: time and peak memory of forward + backward.

    python tests/benchmarks/bench_loss.py [--batch B] [--channels C] [--size PIXELS] [--labels N] [--dtype bfloat16]
    python tests/benchmarks/bench_loss.py --device cuda --batch 16 --size 640 --labels 238 --dtype bfloat16

Below the plain loss are those with a table of relations: "graded" has one column for each label, against which all
others compete by some number in 0..1; in "sets" a fifth of the labels has four columns and one a tenth of all; "soft"
shares each label among these. Two more columns give their time over that of the plain loss, timed in turn in one
process, and their memory over its.

Each row comes from a process of its own, after a warm-up on CUDA. Time is the processor's on a CPU (it may be shared
with other work), the least of --repeat; the device's on CUDA, by events, the median of --repeat. Memory is the peak of
what the loss adds to its inputs. The literal loss is given bfloat16 as a user would: under autocast. Where it fails for
want of memory, or because a tensor of its size is more than torch's kernels take, it goes through the batch in 2, 4, …
pieces, forward and backward each; a version that does not work at all is a row that says why.

With --choices rows follow in which the fused loss has another of its constants, or v channels-last: what was decided by
counting, to be decided by a clock.

On CUDA the last column compares with the memory-traffic floor: v is read forward and backward, its gradient written,
and the targets read twice, at the speed of a copy on this device. The table is Markdown, as in docs/performance.md.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import resource
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.losses import LabelTable, pixel_cosine_loss
from labelmerge.losses.fused import is_interpreted

Name = Literal["literal", "chunked", "fused"]
Relations = Literal["plain", "graded", "sets", "soft"]

# Of `labelmerge.losses.fused`.
CHOICES: dict[str, dict[str, Any]] = {
    "channels-last": {},
    "128 registers forward": {"_REGISTERS_FORWARD": 128},
    "168 registers forward": {"_REGISTERS_FORWARD": 168},
    "4 labels backward": {"_LABELS_BACKWARD": 4},
    "8 labels backward": {"_LABELS_BACKWARD_TABLE": 8},
    "168 registers backward": {"_REGISTERS_BACKWARD": 168},
    "32 rows backward": {"_ROWS_BACKWARD": 32},
    "8 labels forward": {"_LABELS_FORWARD": 8},
    "whole gaps forward": {"_PIXELS_FORWARD": (4, 4)},
}

LITERAL = Path(__file__).resolve().parents[1] / "losses" / "reference.py"


def cuda_milliseconds(work: Callable[[], object], repeat: int) -> float:
    """The median time between two events on the device's own clock; nothing waits in between."""
    mark: Callable[..., Any] = torch.cuda.Event
    marks = [(mark(enable_timing=True), mark(enable_timing=True)) for _ in range(repeat)]
    for start, stop in marks:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(float(start.elapsed_time(stop)) for start, stop in marks)


def cpu_milliseconds(work: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1e3)
    return min(times)


def forget_peak() -> None:
    """Linux: what was used up to now, such as to make a table, does not hide what follows."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


class Found(NamedTuple):
    ms: float
    mib: float
    loss: float
    over_plain: float | None = None  # its milliseconds over those of the plain loss, timed in turn


def table_of(relations: Relations, count: int, generator: torch.Generator) -> LabelTable | None:
    """As the module's docstring says; None for the plain loss."""
    if relations == "plain":
        return None
    positive, label = torch.eye(count, dtype=torch.bool), torch.arange(count)
    if relations != "graded":
        for step in (1, 2, 3):
            positive[label[::5], (label[::5] + step) % count] = True
        positive[0, : count // 10] = True
    negative = torch.rand(count, count, generator=generator)
    return LabelTable(positive, negative, positive / positive.sum(1, keepdim=True) if relations == "soft" else None)


def measure(
    name: Name, relations: Relations, options: argparse.Namespace, pieces: int, choice: str = ""
) -> Found | str:
    """The literal, the chunked or the fused loss; or why it does not work."""
    if choice:
        from labelmerge.losses import fused

        for constant, value in CHOICES[choice].items():
            setattr(fused, constant, value)
    try:
        return _measure(name, relations, options, pieces, channels_last=choice == "channels-last")
    except (RuntimeError, ValueError) as error:  # a GPU's memory, torch's limits, Triton's compiler
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def _measure(
    name: Name, relations: Relations, options: argparse.Namespace, pieces: int, *, channels_last: bool = False
) -> Found:
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    low = -(-options.size // options.stride)
    v = torch.randn(options.batch, options.channels, low, low, generator=generator)
    v = v.to(device, getattr(torch, options.dtype))
    if channels_last:
        v = v.contiguous(memory_format=torch.channels_last)
    labels = F.normalize(torch.randn(options.labels, options.channels, generator=generator), dim=1).to(device)
    # Squares of 16 pixels with one label, as masks have areas.
    side = -(-options.size // 16)
    targets = torch.randint(options.labels, (options.batch, side, side), generator=generator)
    targets = targets.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, : options.size, : options.size]
    targets = targets.contiguous().to(device)
    tau = torch.tensor(0.07, device=device, requires_grad=True)
    plain: Callable[..., Tensor]
    if name == "literal":
        plain = loss = runpy.run_path(str(LITERAL))["pixel_loss"]
    else:
        table = table_of(relations, options.labels, generator)
        plain = partial(pixel_cosine_loss, kernel=name)
        loss = partial(plain, table=None if table is None else table.to(device))

    def once(loss: Callable[..., Tensor] = loss) -> Tensor:
        total = torch.zeros((), device=device)
        for part, target in zip(v.chunk(pieces), targets.chunk(pieces), strict=True):
            part = part.detach().requires_grad_()
            with torch.autocast(device.type, torch.bfloat16, enabled=name == "literal" and v.dtype == torch.bfloat16):
                value = loss(part, labels, target, tau, 65535)
            torch.autograd.grad(value, (part, tau))
            total += value.detach() * len(part) / len(v)  # every pixel has a label
        return total

    def peak() -> float:
        if cuda:
            return torch.cuda.max_memory_allocated(device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    if cuda:
        once()  # compiles, and makes cuBLAS's workspace
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_peak()
    before = torch.cuda.memory_allocated(device) / 2**20 if cuda else peak()
    value = once().item()
    memory = peak() - before
    for _ in range(5 if cuda else 0):
        once()
    milliseconds = cuda_milliseconds if cuda else cpu_milliseconds
    if relations == "plain":
        return Found(milliseconds(once, options.repeat), memory, value)
    turns = [(milliseconds(once, 1), milliseconds(partial(once, plain), 1)) for _ in range(options.repeat)]
    took, without = (statistics.median(each) if cuda else min(each) for each in zip(*turns, strict=True))
    return Found(took, memory, value, took / without)


def floor_milliseconds(options: argparse.Namespace) -> float:
    """What reading v twice, writing its gradient and reading int64 targets twice takes at the speed of a copy."""
    low = -(-options.size // options.stride)
    bytes_of_v: int = options.batch * options.channels * low**2 * getattr(torch, options.dtype).itemsize
    bytes_of_targets: int = options.batch * options.size**2 * 8
    traffic = 3 * bytes_of_v + 2 * bytes_of_targets
    source = torch.empty(2**30, dtype=torch.uint8, device=options.device)
    copy = torch.empty_like(source)
    cuda_milliseconds(lambda: copy.copy_(source), 5)
    took = cuda_milliseconds(lambda: copy.copy_(source), 20)
    speed = 2 * 2**30 / took  # bytes per millisecond, read and written
    print(f"a copy moves {speed / 1e9:.2f} TB/s; the floor is {traffic / 1e6:.0f} MB, {traffic / speed:.3f} ms")
    return traffic / speed


def row(name: Name, relations: Relations, options: argparse.Namespace, choice: str = "") -> tuple[str, Found | str]:
    """What it is called in the table, and what was measured."""
    pieces = 1
    while True:
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                found = process.submit(measure, name, relations, options, pieces, choice).result()
        except BrokenProcessPool:
            found = "its process was killed"
        if not isinstance(found, str) or name != "literal" or 2 * pieces > options.batch:
            title = ", ".join([name, *([relations] if relations != "plain" else []), *([choice] if choice else [])])
            return title if pieces == 1 else f"{title}, in {pieces} pieces", found
        print(f"{name} in {pieces} piece{'s' * (pieces > 1)}: {found}", file=sys.stderr, flush=True)
        pieces *= 2


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
    parser.add_argument(
        "--rows", nargs="+", choices=("literal", "chunked", "fused"), help="which versions; default all"
    )
    parser.add_argument("--choices", action="store_true", help="also the fused loss with other constants")
    options = parser.parse_args()
    cuda = torch.device(options.device).type == "cuda"
    print(
        f"B={options.batch} C={options.channels} H=W={options.size} stride={options.stride} N={options.labels} "
        f"{options.dtype}, {torch.cuda.get_device_name(options.device) if cuda else f'CPU, {options.threads} threads'}"
    )
    floor = floor_milliseconds(options) if cuda else None
    plain: dict[Name, Found] = {}
    names: tuple[Name, ...] = ("literal", "chunked", *(("fused",) if cuda or is_interpreted() else ()))
    names = tuple(name for name in names if name in (options.rows or names))
    kinds: tuple[Relations, ...] = ("plain", "graded", "sets", "soft")
    rows: list[tuple[Name, Relations, str]] = [
        (name, kind, "") for name in names for kind in kinds if name != "literal" or kind == "plain"
    ]
    if options.choices:
        rows += [("fused", "plain", choice) for choice in CHOICES]
    heads = ["", "ms", "MiB", "loss", "times faster", "times smaller", "ms / plain", "MiB / plain"]
    heads += ["ms / floor"] if floor else []
    print(" | ".join(["", *heads, ""]).strip(), "|---" * len(heads) + "|", sep="\n", flush=True)
    for each, relations, choice in rows:
        title, found = row(each, relations, options, choice)
        if isinstance(found, str):
            print(f"| {title} | {found} |", flush=True)
            continue
        if relations == "plain" and not choice:
            plain[each] = found
        literal, own = plain.get("literal"), plain.get(each)
        cells = [title, f"{found.ms:.2f}", f"{found.mib:.0f}", f"{found.loss:.6f}"]
        cells += [f"{literal.ms / found.ms:.1f}", f"{literal.mib / found.mib:.1f}"] if literal else ["", ""]
        cells += [f"{found.over_plain:.2f}"] if found.over_plain else [""]
        cells += [f"{found.mib / own.mib:.2f}"] if own and own.mib and relations != "plain" else [""]
        cells += [f"{found.ms / floor:.1f}"] if floor else []
        print(" | ".join(["", *cells, ""]).strip(), flush=True)


if __name__ == "__main__":
    main()
