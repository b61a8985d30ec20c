"""Which kernels a GPU's time goes to, by torch's profiler: of the fused loss, or of a step (bench_train.py).

    python tests/benchmarks/gpu_kernels.py --device cuda --batch 16 --size 640 [--choices]

A row for each number of labels, layout of v and table of relations (as in bench_loss.py) of the loss with its
gradients, v in bfloat16, as soon as it is measured: milliseconds of each kernel in one round, the least of --repeat,
since others may share the GPU. With --choices rows follow in which a constant is another (bench_loss.py). On a CPU they
are torch's operators, which shows that it works.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import re
import runpy
from collections.abc import Sequence
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


class Loss:
    """The loss of one random batch, measured again and again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device, self.repeat = torch.device(options.device), options.repeat
        torch.manual_seed(0)
        low, side = -(-options.size // 4), -(-options.size // 16)
        v = torch.randn(options.batch, options.channels, low, low, device=self.device, dtype=torch.bfloat16)
        self.layouts = {"NHWC": v.contiguous(memory_format=torch.channels_last), "NCHW": v}
        self.places = torch.rand(options.batch, side, side, device=self.device)
        self.places = self.places.repeat_interleave(16, 1).repeat_interleave(16, 2)  # squares, as masks have areas
        self.places = self.places[:, : options.size, : options.size].contiguous()
        self.tau = torch.tensor(0.07, device=self.device, requires_grad=True)
        self.table_of = runpy.run_path(str(Path(__file__).with_name("bench_loss.py")))["table_of"]

    def kernels(self, count: int, layout: str, relations: str) -> dict[str, float]:
        """Milliseconds of each kernel in a loss with its gradients."""
        v = self.layouts[layout].detach().requires_grad_()
        labels = torch.nn.functional.normalize(torch.randn(count, v.shape[1], device=self.device), dim=1)
        targets = (self.places * count).long().clamp(max=count - 1)
        table = self.table_of(relations, count, torch.Generator().manual_seed(0))
        table = table if table is None else table.to(self.device)
        cuda = self.device.type == "cuda"

        def once() -> None:
            torch.autograd.grad(pixel_cosine_loss(v, labels, targets, self.tau, 65535, table=table), (v, self.tau))
            if cuda:
                torch.cuda.synchronize()

        once()
        rounds: list[dict[str, float]] = []
        for _ in range(self.repeat):
            with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
                once()
            rounds.append({name: spent for name, (spent, _) in kernels(recorded, 1).items()})
        return {name: min(each.get(name, 0.0) for each in rounds) for name in rounds[0]}


def line(title: str, numbers: Sequence[float]) -> str:
    return f"| {title} | " + " | ".join(f"{number:.3f}" if number else "" for number in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="default cpu")
    for name, default in (("batch", 1), ("channels", 512), ("size", 64), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--labels", type=int, nargs="+", default=[238, 1600], help="default 238 1600")
    parser.add_argument("--choices", action="store_true", help="also with other constants")
    options = parser.parse_args()
    loss = Loss(options)
    few, *more = options.labels
    own = ("forward", "backward", "weigh", "products", "products_backward")
    print("| ms | " + " | ".join(own) + " | matrix products | others | all | its second kernels |")
    print("|---" * (len(own) + 5) + "|", flush=True)

    def show(title: str, count: int, layout: str, relations: str) -> None:
        found = loss.kernels(count, layout, relations)
        mine = [found.pop(name, 0.0) for name in own]
        matrices = sum(found.pop(name) for name in list(found) if re.search(KINDS["matrix products"], name, re.I))
        rest = ", ".join(f"`{short(name)[:40]}` {spent:.2f}" for name, spent in list(found.items())[:4])
        others = sum(found.values())
        print(line(title, [*mine, matrices, others, sum(mine) + matrices + others]), rest, "|", flush=True)

    for count, layout, relations in (
        *((few, layout, kind) for layout in ("NHWC", "NCHW") for kind in ("plain", "graded", "sets")),
        *((count, "NHWC", kind) for count in more for kind in ("plain", "sets")),
    ):
        show(f"{count} {layout} {relations}", count, layout, relations)
    if options.choices:
        fused = importlib.import_module("labelmerge.losses.fused")
        choices = runpy.run_path(str(Path(__file__).with_name("bench_loss.py")))["CHOICES"]
        for name, constants in choices.items():
            before = {each: getattr(fused, each) for each in constants}
            vars(fused).update(constants)
            for relations in ("plain", "sets") if constants else ():
                show(f"{relations}, {name}", few, "NHWC", relations)
            vars(fused).update(before)


if __name__ == "__main__":
    main()
