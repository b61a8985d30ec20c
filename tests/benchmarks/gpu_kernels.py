"""Which kernels a GPU's time goes to, by torch's profiler: of the fused loss, or of a step (bench_train.py).

    python tests/benchmarks/gpu_kernels.py --device cuda --batch 16 --size 640

One table of the loss's kernels, forward and backward, v in bfloat16: a column for each number of labels, layout of v,
and table of relations (as in bench_loss.py). Each cell is milliseconds in one round; kernels that no column has for
half a percent of its sum are put together. On a CPU they are torch's operators, which shows that it works.
"""

from __future__ import annotations

import argparse
import collections
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from labelmerge.losses import pixel_cosine_loss

# Kinds of kernels by their names, the first that fits.
KINDS = {
    "copies, CPU to GPU or within": r"^Mem(cpy|set)",
    "attention": r"flash|fmha|attention|softmax",
    "this loss": r"^(forward|backward|weigh|products|products_backward|gradients?_\w+)$",
    "compiled": r"^triton_",
    "convolutions": r"conv|cudnn|dgrad|wgrad|nhwc|nchw",
    "matrix products": r"gemm|nvjet|cutlass|splitK|cublas",
    "norms": r"norm|bn_",
    "optimiser, clipping": r"multi_tensor|lpnorm|fused_adam",
    "casts and copies": r"copy_kernel|Copy|bfloat16tofloat|CatArray",
    "sums": r"reduce_kernel",
    "upsampling": r"upsample",
    "elementwise": r"elementwise|vectorized|index",
}


def kernels(recorded: Any, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds and calls of each kernel in one of so many rounds, the longest first."""
    took: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, float] = collections.defaultdict(float)
    events = recorded.key_averages()
    on_gpu = [each for each in events if "CUDA" in str(each.device_type)]
    for each in on_gpu or events:
        took[each.key] += (each.self_device_time_total if on_gpu else each.self_cpu_time_total) / 1e3 / rounds
        calls[each.key] += each.count / rounds
    return {name: (took[name], calls[name]) for name in sorted(took, key=lambda name: -took[name]) if took[name]}


def short(name: str) -> str:
    """A kernel's name without what all have, and not longer than a table can take."""
    name = re.sub(r"\b(void|at::native::|at::|cuda::|\(anonymous namespace\)::|c10::|std::|cutlass::)", "", name)
    return re.sub(r"\s*\|\s*", "/", name)[:110]


def step_table(recorded: Any, rounds: int, seconds: float, most: int = 24) -> str:
    """Markdown: where a step's time on the GPU goes, by kinds and by the longest kernels; and the CPU's."""
    found = kernels(recorded, rounds)
    whole = sum(spent for spent, _ in found.values())
    events = recorded.key_averages()
    launches = [each for each in events if re.search(r"Launch(Kernel|Cooperative)|GraphLaunch", each.key)]
    calls = sum(each.count for each in launches) / rounds
    launching = sum(each.self_cpu_time_total for each in launches) / 1e3 / rounds
    kinds: dict[str, float] = collections.defaultdict(float)
    for name, (spent, _) in found.items():
        kinds[next((kind for kind, form in KINDS.items() if re.search(form, name, re.I)), "others")] += spent
    lines = [
        f"{seconds / rounds * 1e3:.1f} ms a step under the profiler: {whole:.1f} ms of kernels; {calls:.0f} launches, "
        f"{launching:.1f} ms within them",
        "",
        "| | ms | share |",
        "|---|---|---|",
        *(
            f"| {kind} | {spent:.2f} | {spent / whole:.1%} |"
            for kind, spent in sorted(kinds.items(), key=lambda each: -each[1])
        ),
        "",
        "| kernel | ms | calls |",
        "|---|---|---|",
        *(f"| `{short(name)}` | {spent:.2f} | {count:.0f} |" for name, (spent, count) in list(found.items())[:most]),
        "",
    ]
    return "\n".join(lines)


def loss_kernels(options: argparse.Namespace, count: int, layout: str, relations: str) -> dict[str, float]:
    """Milliseconds of each kernel in a loss with its gradients."""
    generator = torch.Generator().manual_seed(0)
    low, device = -(-options.size // 4), torch.device(options.device)
    made = runpy.run_path(str(Path(__file__).with_name("bench_loss.py")))
    v = torch.randn(options.batch, options.channels, low, low, generator=generator).to(device, torch.bfloat16)
    if layout == "NHWC":
        v = v.contiguous(memory_format=torch.channels_last)
    v.requires_grad_()
    labels = torch.nn.functional.normalize(torch.randn(count, options.channels, generator=generator), dim=1).to(device)
    side = -(-options.size // 16)
    targets = torch.randint(count, (options.batch, side, side), generator=generator)
    targets = targets.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, : options.size, : options.size]
    targets = targets.contiguous().to(device)
    tau = torch.tensor(0.07, device=device, requires_grad=True)
    table = made["table_of"](relations, count, generator)
    table = table if table is None else table.to(device)

    def once() -> None:
        torch.autograd.grad(pixel_cosine_loss(v, labels, targets, tau, 65535, table=table), (v, tau))

    for _ in range(3):
        once()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as recorded:
        for _ in range(options.repeat):
            once()
        if cuda:
            torch.cuda.synchronize()
    return {name: spent for name, (spent, _) in kernels(recorded, options.repeat).items()}


def side_by_side(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: kernels down, columns across, with their sums."""
    wholes = {title: sum(column.values()) for title, column in columns.items()}
    most = {name: max(column.get(name, 0) / wholes[t] for t, column in columns.items()) for name in _all(columns)}
    shown = sorted((name for name in most if most[name] >= 0.005), key=lambda name: -most[name])
    lines = ["| kernel, ms | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [_line(f"`{short(name)}`", [column.get(name, 0) for column in columns.values()]) for name in shown]
    rest = [sum(spent for name, spent in column.items() if name not in shown) for column in columns.values()]
    return "\n".join([*lines, _line("others", rest), _line("all", list(wholes.values()))])


def _all(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for column in columns.values() for name in column))


def _line(title: str, numbers: Sequence[float]) -> str:
    return f"| {title} | " + " | ".join(f"{number:.3f}" if number else "" for number in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="default cpu")
    for name, default in (("batch", 1), ("channels", 512), ("size", 64), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--labels", type=int, nargs="+", default=[238, 1600], help="default 238 1600")
    options = parser.parse_args()
    few, *more = options.labels
    wanted = [(few, layout, kind) for layout in ("NHWC", "NCHW") for kind in ("plain", "graded", "sets")]
    wanted += [(count, "NHWC", kind) for count in more for kind in ("plain", "sets")]
    columns = {f"{count} {layout} {kind}": loss_kernels(options, count, layout, kind) for count, layout, kind in wanted}
    print(side_by_side(columns))


if __name__ == "__main__":
    main()
