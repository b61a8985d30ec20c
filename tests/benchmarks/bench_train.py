"""A training step beside a plain loop with the literal loss: speed, memory, and where the time goes.

    python tests/benchmarks/bench_train.py                    # tiny, on a CPU: shows that it works
    python tests/benchmarks/bench_train.py --model segformer-b5 --crop 640 --batch 16 --labels 238 --steps 40 \\
        --device cuda --workers 16 [--shards DIR --bank BANK] [--channels-last] [--kernels]

Rows, each from a process of its own and printed as it comes, on the same samples:

* plain, literal: one batch that lies on the device, bfloat16 autocast on a GPU, embeddings upsampled to the full size.
  Where a batch fails for want of memory, or because a tensor is more than torch's kernels take, it goes through the
  model and the loss in 2, 4, … pieces, whose gradients add up.
* plain, exact: the same loop with `pixel_cosine_loss`.
* smp, transformers: the same loop with the SegFormer of these libraries and what one does with it: logits of a fixed
  list of classes, upsampled to the full size, cross-entropy. For SegFormers alone.
* train, one batch: `labelmerge.train.loop.train` with a loader that costs nothing; below it with `--cuda-graphs`
  (on a GPU), with that but without the kernel of Mix-FFN (labelmerge.model.depthwise), with `--compile`, with both, and
  with `--recompute`.
* train, shards: the same, reading and augmenting; without --shards, toy shards with masks that are written first.

The loss's share of a step is what a step takes less where the loss is a mere mean of the embeddings (--quick leaves
it out, and with it half the time). FLOPs are counted on each row's model alone, three times its forward pass
(`torch.utils.flop_counter`); their share is of the device's bfloat16 peak (dense, from the data sheets; --peak-tflops
names another), on a CPU of a large matrix product timed in the same run. Memory is the allocator's peak on a GPU; on a
CPU the process's, all libraries included. The table is Markdown, as in docs/performance.md; a row that can't be
measured says why. With --kernels, the rows of one batch that keep their activations tell below them where three of
their first steps' time went (gpu_kernels.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import resource
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from labelmerge.errors import LabelmergeError
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.loading.mixture import Mixture
from labelmerge.losses import pixel_cosine_loss
from labelmerge.methods.method import find_method
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.model import backbones
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
from labelmerge.train.log import read_log
from labelmerge.train.loop import train

_TESTS = Path(__file__).resolve().parents[1]
_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
_ROWS = {
    "plain, literal": "literal",
    "plain, exact": "exact",
    "smp": "smp",
    "transformers": "transformers",
    "train, one batch": "one batch",
    "train, CUDA graphs": "one batch",
    "train, CUDA graphs, torch's Mix-FFN": "one batch",
    "train, compiled": "one batch",
    "train, compiled, CUDA graphs": "one batch",
    "train, recomputed": "one batch",
    "train, shards": "shards",
}
_WITH: dict[str, dict[str, bool]] = {
    "train, CUDA graphs": {"cuda_graphs": True},
    "train, CUDA graphs, torch's Mix-FFN": {"cuda_graphs": True},
    "train, compiled": {"compile": True},
    "train, compiled, CUDA graphs": {"compile": True, "cuda_graphs": True},
    "train, recomputed": {"recompute": True},
}
_OTHERS = ("smp", "transformers")


@dataclasses.dataclass
class Figures:
    """images/s, the share of time that is spent waiting for data, MiB, and with --kernels where the time goes."""

    speed: float
    wait: float
    memory: float
    told: str = ""


def configuration(options: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        model=options.model,
        batch_size=options.batch,
        crop=options.crop,
        steps=2 * options.steps,
        log_every=options.steps,  # the second line has none of the first steps
        checkpoint_every=2 * options.steps,
        lr=6e-5,
        workers=options.workers,
        channels_last=options.channels_last,
        short_edge=options.short_edge,
        eval_sets=True,
    )


def network(options: argparse.Namespace, kind: str, dim: int, classes: int) -> nn.Module:
    """Ours, with `dim` channels, or another library's SegFormer with `classes`; a quarter of the images' size each."""
    if kind not in _OTHERS:
        return build_model(options.model, dim)
    if not options.model.startswith("segformer-b"):
        raise LabelmergeError(f"{kind} is measured with a SegFormer alone, not {options.model}")
    counted = runpy.run_path(str(_TESTS / "benchmarks/count_step.py"))
    made: nn.Module = counted["theirs"](kind, int(options.model[-1]), classes)
    return made


def full_size_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """What one does with the logits of a fixed list of classes."""
    full = F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, masks.long(), ignore_index=IGNORE)


def plain_loop(options: argparse.Namespace, kind: str, without_loss: bool, pieces: int) -> Figures:
    """What a training script looks like that has never heard of all this."""
    config, device = configuration(options), torch.device(options.device)
    inputs = read_inputs([options.shards], options.bank, "train", config, find_method("ssiw"), Ranks())
    (made,) = inputs.mixture.batch(0)
    batch = made.to(device)
    labels = torch.from_numpy(inputs.columns.vectors).to(device)
    model = network(options, kind, labels.shape[1], len(labels)).to(device).train()
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    log_tau = torch.tensor(-2.66, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([*model.parameters(), log_tau], lr=config.lr)
    written = runpy.run_path(str(_TESTS / "losses/reference.py"))["pixel_loss"]
    loss_of: Callable[..., Tensor] = written if kind == "literal" else pixel_cosine_loss
    began = 0.0
    for step in range(config.steps):
        if step == options.steps:
            wait_for(device)
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for pixels, masks in zip(batch.images.chunk(pieces), batch.masks.chunk(pieces), strict=True):
            # The literal loss in bfloat16 too, as one has it who writes it into the loop.
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                embeddings = model(pixels.float() / 255)
                if without_loss:
                    loss = embeddings.mean() + log_tau * 0
                elif kind in _OTHERS:
                    loss = full_size_loss(embeddings, masks)
                else:
                    loss = loss_of(embeddings, labels, masks, log_tau.exp(), IGNORE)
            (loss * (len(masks) / len(batch.masks))).backward()
        optimizer.step()
    wait_for(device)
    return Figures(options.steps * config.batch_size / (time.perf_counter() - began), 0.0, peak(device))


def our_loop(options: argparse.Namespace, row: str, without_loss: bool) -> Figures:
    """`train` as it is, but for a loader that costs nothing and a loss that does, where asked for."""
    told: list[str] = []
    config = configuration(options).changed(**_WITH.get(row, {}))
    if _ROWS[row] != "shards":
        kernels = options.kernels and not without_loss and not config.recompute
        seen = range(options.steps - 4, options.steps - 1) if kernels else range(0)
        Mixture.batches = partialmethod(one_batch, seen=seen, told=told)  # type: ignore[assignment, method-assign]
    if row.endswith("torch's Mix-FFN"):
        backbones.suits = lambda x: False  # type: ignore[attr-defined]
    if without_loss:
        SSIWLearner.forward = no_loss  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as out:
        train([options.shards], options.bank, Path(out), config=config, device=options.device)
        line = read_log(Path(out))[-1]
    return Figures(line["images_per_second"], line["wait_share"], peak(torch.device(options.device)), "".join(told))


def one_batch(
    mixture: Mixture, start: int, stop: int, *, seen: range, told: list[str], pin_memory: bool = False, **_: object
) -> Iterator[list[Batch]]:
    """The same batch for every step; the steps `seen` are profiled, and `told` gets what they take."""
    (made,) = mixture.batch(start)
    made = made.pin_memory() if pin_memory else made
    cuda = torch.cuda.is_available()
    recorder = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
    began = 0.0
    for step in range(start, stop):
        if step in (seen.start, seen.stop) and len(seen):
            wait_for(torch.device("cuda" if cuda else "cpu"))
            if step == seen.start:
                recorder.start()
                began = time.perf_counter()
            else:
                took = time.perf_counter() - began
                recorder.stop()
                made_by = runpy.run_path(str(_TESTS / "benchmarks/gpu_kernels.py"))
                told.append(made_by["step_table"](recorder, len(seen), took))
        yield [dataclasses.replace(made, step=step)]


def no_loss(learner: SSIWLearner, batch: Batch) -> Tensor:
    embeddings: Tensor = learner.model(learner.model.normalise(batch.images))
    nothing: Tensor = embeddings.mean().float() + 0 * learner.temperature()
    return nothing.expand(len(learner.terms), len(learner.vocabulary.datasets))


def measure(options: argparse.Namespace, row: str, pieces: int) -> tuple[Figures | str, Figures | str]:
    """One row, as it is and then without its loss; or why it can't be measured."""
    torch.set_num_threads(options.threads)
    kind = _ROWS[row]
    found: list[Figures | str] = []
    for without_loss in (False,) if options.quick or kind in _OTHERS else (False, True):
        try:
            if kind in ("one batch", "shards"):
                found.append(our_loop(options, row, without_loss))
            else:
                found.append(plain_loop(options, kind, without_loss, pieces))
        except (MemoryError, RuntimeError, ImportError, LabelmergeError) as error:
            found.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
            break
    return found[0], found[1] if len(found) > 1 else "not measured"


def apart(options: argparse.Namespace, row: str, pieces: int) -> tuple[Figures | str, Figures | str]:
    """`measure` in a process of its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(measure, options, row, pieces).result()
    except BrokenProcessPool:
        return ("its process was killed",) * 2


def measured(options: argparse.Namespace, row: str, flops: float, most: float) -> dict[str, float | str]:
    """A row of the table, and "told"."""
    pieces = 1
    whole, bare = apart(options, row, pieces)
    while isinstance(whole, str):
        if _ROWS[row] != "literal" or 2 * pieces > options.batch:
            return {"failed": whole}
        pieces *= 2
        whole, bare = apart(options, row, pieces)
    return {
        "images_per_second": whole.speed,
        "loss_share": float("nan") if isinstance(bare, str) else 1 - whole.speed / bare.speed,
        "wait_share": whole.wait,
        "peak_mib": whole.memory,
        "flop_utilisation": flops * whole.speed / most,
        "pieces": pieces,
        "told": whole.told,
    }


def flops_per_image(options: argparse.Namespace, kind: str, dim: int, classes: int) -> float:
    """Of the model's forward and backward pass, counted on tensors without content.

    The backward pass is taken for twice the forward one: the counter takes a depthwise convolution's for a
    full one's.
    """
    from torch.utils.flop_counter import FlopCounterMode

    def stays(tensor: Tensor, *_: object, **__: object) -> Tensor:
        return tensor

    with mock.patch.multiple(Tensor, normal_=stays, uniform_=stays, erfinv_=stays):  # whatever its weights
        model = network(options, kind, dim, classes).to("meta").train()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        # two, because batch norm wants more than one value per channel
        model(torch.empty(2, 3, options.crop, options.crop, device="meta"))
    return 3 * float(counter.get_total_flops()) / 2


def peak_flops(options: argparse.Namespace) -> tuple[float, str]:
    """The device's most operations per second, and where that number is from."""
    if options.peak_tflops:
        return options.peak_tflops * 1e12, "given"
    if options.device.startswith("cuda"):
        name = torch.cuda.get_device_name(options.device)
        known = [tflops for key, tflops in _TFLOPS.items() if key in name]
        return (
            (known[0] * 1e12, f"{name}, bfloat16") if known else (float("nan"), f"{name} is not known: --peak-tflops")
        )
    torch.set_num_threads(options.threads)
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(times), "a matrix product"


def peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_toys(folder: Path, options: argparse.Namespace) -> None:
    """Shards of noisy images with masks, a little larger than a view, and a bank of random vectors for their labels."""
    toys = runpy.run_path(str(_TESTS / "loading/toy_shards.py"))
    names = tuple(f"class {number}" for number in range(options.labels))
    side = options.crop * 5 // 4
    toy = toys["Toy"](
        "toys", names, count=2 * options.batch, size=(side, side), colours=tuple(range(6)) * options.labels
    )
    toy.write(folder / "shards")
    toys["toy_bank"]([toy], options.dim).save(folder / "bank")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="default tiny")
    for name, default, what in (
        ("crop", 64, "side of a view"),
        ("batch", 4, "images in a batch"),
        ("labels", 32, "labels of the toy shards"),
        ("dim", 512, "dimension of their vectors"),
        ("steps", 4, "steps that are timed, after as many that are not"),
        ("workers", 1, "processes that make batches"),
        ("threads", 1, "threads of torch"),
        ("short-edge", 0, "as in training"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what}; default {default}")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--shards", type=Path, help="real shards; with --bank")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--kernels", action="store_true", help="also what the steps' kernels take; from 5 --steps on")
    parser.add_argument("--quick", action="store_true", help="without the loss's share")
    parser.add_argument("--rows", nargs="+", choices=list(_ROWS), default=list(_ROWS), help="which rows; default all")
    parser.add_argument("--peak-tflops", type=float, help="what the device can do at most")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.shards is None:
            write_toys(Path(scratch), options)
            options.shards, options.bank = Path(scratch) / "shards", Path(scratch) / "bank"
        config = configuration(options)
        columns = read_inputs([options.shards], options.bank, "train", config, find_method("ssiw"), Ranks()).columns
        dim = columns.vectors.shape[1]
        flops = flops_per_image(options, "ours", dim, len(columns))
        most, source = peak_flops(options)
        title = (
            f"{options.model}, {options.crop}x{options.crop}, batch {options.batch}, {len(columns)} labels of "
            f"{columns.vectors.shape[1]} dimensions, {options.device}; {flops / 1e9:.1f} GFLOP an image, peak "
            f"{most / 1e12:.2f} TFLOP/s ({source})"
        )
        head = "| | images/s | in the loss | data wait | peak MiB | FLOP use |\n" + "|---" * 6 + "|"
        if not options.json:
            print(title, head, sep="\n")
        table = {}
        for row in options.rows:
            try:
                own = flops_per_image(options, row, dim, len(columns)) if row in _OTHERS else flops
            except (LabelmergeError, ImportError):
                own = float("nan")  # the row will say why
            table[row] = cells = measured(options, row, own, most)
            if not options.json:
                print(line_of(row, cells), flush=True)
            if cells.get("told") and not options.json:
                print("", cells["told"], *([head] if row != options.rows[-1] else []), sep="\n", flush=True)
    if options.json:
        print(json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "rows": table}, indent=1))


def line_of(row: str, cells: dict[str, float | str]) -> str:
    if "failed" in cells:
        return f"| {row} | {cells['failed']} |"
    title = row if cells["pieces"] == 1 else f"{row}, in {cells['pieces']} pieces"
    numbers = [cells[key] for key in ("images_per_second", "loss_share", "wait_share", "peak_mib", "flop_utilisation")]
    kinds = ("{:.2f}", "{:.1%}", "{:.1%}", "{:.0f}", "{:.1%}")
    shown = ["" if number != number else kind.format(number) for number, kind in zip(numbers, kinds, strict=True)]
    return "| " + " | ".join([title, *shown]) + " |"


if __name__ == "__main__":
    main()
