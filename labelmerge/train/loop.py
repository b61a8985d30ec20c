"""The training loop, from shards and a bank to a run, to be read from top to bottom.

::

    labelmerge train --shards shards-out --bank bank --out run --preset tiny --steps 300
    torchrun --nproc-per-node 8 --no-python labelmerge train --shards shards-out --bank bank --out run \\
        --preset segformer-b5

Step t depends on the weights before it and on (seed, t), nothing else: its batch is a function of them, the generators
are seeded with them, and so is the learning rate. A run that was killed therefore goes on from its newest checkpoint as
if nothing had happened; on a CPU to the last bit.

A step takes one batch, however many processes share it and in however many pieces each runs its part: losses are means
over the pixels, boxes or segments of the whole batch, which are counted before the network runs. What the losses are is
the method's affair (`labelmerge.methods.method`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from labelmerge.methods.method import TrainingData, find_method
from labelmerge.model.build import SegmentationModel
from labelmerge.model.checkpoint import load_checkpoint, load_state, newest_checkpoint, save_checkpoint
from labelmerge.model.ema import copy_of, update_average
from labelmerge.model.graphs import GraphedForward
from labelmerge.processes import Ranks
from labelmerge.progress import Track, no_track
from labelmerge.text import counted
from labelmerge.train.begin import begin, logged_in, restore_optimizer, restore_weights, resume
from labelmerge.train.config import TrainConfig
from labelmerge.train.faults import Place, clear_faults, refuse_no_number, say_untaught
from labelmerge.train.finished import RunResult as RunResult
from labelmerge.train.finished import note_finished
from labelmerge.train.inputs import read_inputs
from labelmerge.train.log import last_loss
from labelmerge.train.optimizer import make_optimizer, schedule_factor
from labelmerge.train.processes import (
    distribute,
    refuse_graphs,
    refuse_other_views,
    refuse_too_many_pieces,
    training_ranks,
)
from labelmerge.train.run import CURVES, RunLog, claim_run, draw_curves, figures, lock_run, mean_of, taught

T = TypeVar("T")

_MIXING = -1  # instead of a rank, in seeds: what a method draws is the same in all processes

_log = logging.getLogger(__name__)


def train(
    shards: Sequence[Path],
    bank: Path,
    out: Path,
    *,
    config: TrainConfig,
    split: str | None = "train",
    device: str | None = None,
    found: Callable[[], None] = lambda: None,
    track: Track = no_track,
) -> RunResult:
    """Train one model on all the shards, or go on with a run that was interrupted.

    Reseeds torch's global generators. Writes `out` as docs/architecture.md says ("A run"). Started by torchrun, its
    processes share every batch, and the first of them alone writes.

    Args:
        shards: split folders, dataset folders, or folders of datasets.
        bank: the bank folder; its newest version.
        out: the run. The same call again continues it from its newest checkpoint; a finished run is left as it is.
        split: which split below dataset folders is trained on; None for all.
        device: ``cpu``, ``cuda``, …; by default a GPU if there is one, and each process of a machine its own.
        found: is called once, when the inputs are found and fit.
        track: shows progress. If what it returns has tqdm's `set_postfix_str`, that is told the loss.

    Raises:
        ShardError, BankError, CheckpointError, OutputError: an input or the run can't be read or written, or another
            process writes it.
        ConfigError: the configuration does not fit the shards, or `out` holds another run.
        LabelmergeError: the loss is no longer a number, no sample taught anything, memory ran out, or a process died.
    """
    with training_ranks(device) as (ranks, here), ExitStack() as held:
        result = _train(shards, bank, out, config, split, ranks, here, found, track, held)
        if ranks.rank == 0:
            note_finished(result, shards, bank, config, split)
        return result


def _train(
    shards: Sequence[Path],
    bank: Path,
    out: Path,
    config: TrainConfig,
    split: str | None,
    ranks: Ranks,
    here: torch.device,
    found: Callable[[], None],
    track: Track,
    held: ExitStack,
) -> RunResult:
    began = time.monotonic()
    first = ranks.rank == 0
    method = find_method(config.method)

    # ---- the inputs: which samples, which labels
    inputs = read_inputs(shards, bank, split, config, method, ranks, defer=here.type == "cuda")
    columns, datasets = inputs.columns, inputs.datasets
    config = config.with_steps_for(inputs.samples)
    if first and config.warmup >= config.steps:
        _log.warning(
            "the run ends before its learning rate has risen: %d steps, and warmup = %d", config.steps, config.warmup
        )
    whole_config = {}
    if first:
        held.enter_context(lock_run(out))
    start, checkpoint = 0, newest_checkpoint(out)
    if first and checkpoint is not None:
        whole_config = claim_run(out, config, inputs.record, begun=True)
    refuse_too_many_pieces(config.batch_size, config.accumulate, ranks)
    refuse_graphs(config, ranks, here)
    found()

    # ---- the learner: new, fine-tuned, or as the newest checkpoint has it
    torch.manual_seed(config.seed)
    if checkpoint is None:
        learner, origin = begin(config, method, inputs.vocabulary, inputs.bank.encoder)
    else:
        loaded = load_checkpoint(checkpoint)
        start, (learner, origin) = loaded.step, resume(loaded, inputs.vocabulary)
    refuse_other_views(ranks.gather((start, inputs.record["bank_version"], inputs.record["manifests"])), out)
    if checkpoint is not None and start >= config.steps:
        _log.info("the run is finished: %d of %d steps are done, nothing to do", start, config.steps)
        if first and not (out / CURVES).exists():
            draw_curves(out)
        return RunResult(out, start, last_loss(out), checkpoint, time.monotonic() - began, 0)
    networks = [part for part in learner.modules() if isinstance(part, SegmentationModel)]
    for network in networks:
        network.layer_decay = config.layer_decay
        network.freeze(config.freeze)
    learner.to(here).train()
    if config.channels_last:
        learner.to(memory_format=torch.channels_last)
        for network in networks:
            network.memory_format = torch.channels_last
    sources = inputs.mixture.sources
    edges = {name: int(table["short_edge"]) for name, table in config.views.items() if "short_edge" in table}
    learner.prepare(TrainingData(inputs.bank, columns, sources, ranks, here, start, config.short_edge, edges))
    if first and checkpoint is None:  # only now, so that weights that can't be had leave nothing behind
        whole_config = claim_run(out, config, inputs.record, begun=False)
    optimizer = make_optimizer(learner, config)
    average = copy_of(learner) if config.ema else None
    logged: list[list[float]] = []  # what `figures` gives of the steps since the last line of the log
    if checkpoint is not None:
        state = load_state(checkpoint)
        restore_optimizer(optimizer, state, checkpoint)
        logged += logged_in(state, 2 + len(learner.terms) + len(datasets), checkpoint)
        if average is not None:  # the checkpoint's learner is the average
            restore_weights(learner, state, checkpoint)
        _log.info("resuming from step %d (%s)", start, checkpoint)
    if config.compile:
        for network in networks:
            network.compile_network()
    if config.cuda_graphs:
        for network in networks:
            GraphedForward(network)
    shared = distribute(learner, ranks, here)
    for network in networks if config.recompute else ():
        network.recompute()
    meta = {
        "bank_version": inputs.bank.version,
        "encoder": inputs.bank.encoder,
        "merge": config.merge,
        "manifests": inputs.record["manifests"],
        **inputs.vocabulary.to_meta(),
        **({"init": origin} if origin else {}),
        **({"ema": config.ema} if config.ema else {}),
    }
    _log.info(
        "%s, %s, %s in %s, on %s",
        counted(len(datasets), "dataset"), counted(inputs.samples, "sample"),
        counted(len(columns.labels), "label"), counted(len(columns), "column"),
        f"{ranks.world} processes" if ranks.world > 1 else here,
    )  # fmt: skip
    terms, parameters, on_gpu = learner.terms, list(learner.parameters()), here.type == "cuda"

    # ---- the steps
    log = RunLog(out, start, tensorboard=config.tensorboard) if first else None
    place = Place(start, checkpoint)
    unread: list[Tensor] = []  # rows for `figures` that were not read yet, because reading waits for a GPU
    met: list[str] = []  # corrupt samples that this process met since the last line
    skipped: set[str] = set()  # those of all processes
    final_loss, since, last_line, waited = math.nan, start, time.monotonic(), [0.0]
    batches = inputs.mixture.batches(start, config.steps, workers=config.workers, pin_memory=on_gpu)
    doing = f"training on from step {start:,}" if start else "training"
    bar = (track if first else no_track)(_waited_for(batches, waited), doing, config.steps - start)
    with clear_faults(config, place):
        place.step += 1
        for batches_of_step in bar:
            step = batches_of_step[0].step
            torch.manual_seed(_seed_of(config.seed, step, ranks.rank))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * schedule_factor(step, config)
            draws = torch.Generator().manual_seed(_seed_of(config.seed, step, _MIXING))
            sizes = [learner.mix(batch.to(here), draws) for batch in batches_of_step]  # one batch for each size of view

            # A loss is a mean over its units in the whole step, so they are counted before the network runs.
            units = torch.stack([learner.units(batch) for batch in sizes]).sum(0)  # [T, D]
            if ranks.world > 1:
                distributed.all_reduce(units)
            # One over each term's units; gradients become the mean over processes, hence `world`.
            scale = ranks.world / units.sum(1, keepdim=True).float().clamp(min=1)  # [T, 1]

            optimizer.zero_grad(set_to_none=True)
            sums = torch.zeros(units.shape, device=here)
            pieces = [piece for batch in sizes for piece in batch.pieces(config.accumulate)]
            for number, piece in enumerate(pieces, start=1):
                with _gradients_stay(shared, number < len(pieces)):
                    with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu and config.bf16):
                        own = shared(piece)  # [T, D]
                    (own * scale).sum().backward()
                sums += own.detach()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)
            optimizer.step()
            told_by_method = learner.after_step(step)
            if average is not None:
                update_average(average, learner, config.ema, step)
            if config.compile and step == start:
                _log.info("the first step, which compiled the network, took %.0f s", time.monotonic() - last_line)
            unread.append(torch.cat([norm.detach().float().view(1), sums.flatten(), units.float().flatten()]))
            met += [line for batch in sizes for line in batch.skipped]

            done = step + 1
            line_due = done % config.log_every == 0 or done == config.steps
            checkpoint_due = done % config.checkpoint_every == 0 or done == config.steps
            if line_due or checkpoint_due:
                told = ranks.gather((torch.stack(unread).cpu(), waited[0], met))
                unread.clear()
                rows = figures([rows for rows, _, _ in told], len(terms)).tolist()
                learnt = taught([rows for rows, _, _ in told]).tolist()
                for place.step, row in enumerate(rows, start=done - len(rows) + 1):
                    any_loss = learnt[place.step - done - 1]
                    refuse_no_number(row[0] if any_loss else 0.0, row[1], out)
                logged += rows
                corrupt = {line for _, _, lines in told for line in lines}
                for line in sorted(corrupt - skipped) if first else ():
                    _log.warning("skipped %s", line)
                skipped |= corrupt
                met.clear()
            if line_due:
                final_loss, mean_norm, *means = (mean_of(values) for values in zip(*logged, strict=True))
                now = time.monotonic()
                if log is not None:
                    log.append(
                        {
                            "step": done,
                            "loss": final_loss,
                            "parts": dict(zip(terms, means, strict=False)),
                            "datasets": dict(zip(datasets, means[len(terms) :], strict=True)),
                            "grad_norm": mean_norm,
                            **learner.figures(),
                            **{name: float(value) for name, value in told_by_method.items()},
                            "lr": config.lr * schedule_factor(step, config),
                            "images_per_second": (done - since) * config.batch_size / max(now - last_line, 1e-9),
                            "wait_share": max(wait for _, wait, _ in told) / max(now - last_line, 1e-9),
                            "skipped": len(skipped),
                        }
                    )
                logged, since, last_line, waited[0] = [], done, now, 0.0
                if hasattr(bar, "set_postfix_str"):
                    bar.set_postfix_str(f"loss {final_loss:.3f}")
            if checkpoint_due:
                checkpoint = out / "checkpoints" / f"step-{done:06d}"
                if first:
                    kept = average or learner
                    checkpoint = save_checkpoint(
                        out,
                        step=done,
                        tensors=kept.state_dict(),
                        model={"name": config.model, "embedding_dim": learner.model.embedding_dim},
                        state={
                            "optimizer": optimizer.state_dict(),
                            "logged": logged,
                            **({"weights": learner.state_dict()} if average is not None else {}),
                        },
                        config=whole_config,
                        meta={**kept.figures(), **meta},
                        bank_folder_writer=inputs.bank.save_copy,
                        taxonomy=inputs.taxonomy.table() if inputs.taxonomy is not None else None,
                        keep=config.keep_checkpoints,
                    )
                place.checkpoint = checkpoint
            place.step = done + 1

    assert checkpoint is not None  # the last step writes one
    if log is not None:
        log.close()
        draw_curves(out)
    untaught = tuple(say_untaught(out, datasets)) if first else ()
    seconds = time.monotonic() - began
    return RunResult(out, config.steps, final_loss, checkpoint, seconds, len(skipped), untaught)


def _waited_for(things: Iterable[T], waited: list[float]) -> Iterator[T]:
    """The things; ``waited[0]`` grows by the seconds that they were waited for."""
    iterator = iter(things)
    while True:
        began = time.monotonic()
        try:
            thing = next(iterator)
        except StopIteration:
            return
        waited[0] += time.monotonic() - began
        yield thing


def _gradients_stay(network: nn.Module, more: bool) -> AbstractContextManager[None]:
    """While `more` pieces of the step come, gradients need not go to the other processes yet."""
    return network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext()


def _seed_of(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step + 1 + (rank << 40)) % 2**63
