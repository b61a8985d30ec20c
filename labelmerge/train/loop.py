"""The training loop, from shards and a bank to a run, to be read from top to bottom.

::

    labelmerge train --shards shards-out --bank bank --out run --preset tiny --steps 300
    torchrun --nproc-per-node 8 --no-python labelmerge train --shards shards-out --bank bank --out run \\
        --preset segformer-b5

Step t depends on the weights before it and on (seed, t), nothing else: its batch is a function of them, the generators
are seeded with them, and so is the learning rate. A run that was killed therefore goes on from its newest checkpoint as
if nothing had happened; on a CPU to the last bit.

A step takes one batch, however many processes share it and in however many pieces each runs its part: losses are means
over the pixels and boxes of the whole batch.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from labelmerge.errors import ConfigError
from labelmerge.loading.mixture import Batch
from labelmerge.methods.method import find_method
from labelmerge.methods.ssiw.teacher import choose_teacher
from labelmerge.model.build import SegmentationModel
from labelmerge.model.checkpoint import load_checkpoint, load_state, newest_checkpoint, save_checkpoint
from labelmerge.model.ema import copy_of, update_average
from labelmerge.model.temperature import Temperature
from labelmerge.processes import Ranks
from labelmerge.progress import Track, no_track
from labelmerge.train.begin import begin
from labelmerge.train.config import TrainConfig
from labelmerge.train.faults import Place, clear_faults, refuse_no_number
from labelmerge.train.inputs import read_inputs
from labelmerge.train.optimizer import make_optimizer, schedule_factor
from labelmerge.train.processes import distribute, training_ranks
from labelmerge.train.run import CURVES, RunLog, claim_run, draw_curves, figures, last_loss, lock_run, mean_of

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run: its folder.
        steps: how many steps its newest checkpoint has behind it.
        final_loss: mean loss over the last logged steps.
        checkpoint: the newest checkpoint's folder.
        seconds: how long this call took; near 0 where the run was finished before.
        skipped: corrupt samples met and replaced in this call, by all processes.
    """

    run: Path
    steps: int
    final_loss: float
    checkpoint: Path
    seconds: float
    skipped: int


def train(
    shards: Sequence[Path],
    bank: Path,
    out: Path,
    *,
    config: TrainConfig,
    split: str | None = "train",
    device: str | None = None,
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
        track: shows progress. If what it returns has tqdm's `set_postfix_str`, that is told the loss.

    Raises:
        ShardError, BankError, CheckpointError, OutputError: an input or the run can't be read or written, or another
            process writes it.
        ConfigError: the configuration does not fit the shards, or `out` holds another run.
        LabelmergeError: the loss is no longer a number, memory ran out, or a process died.
    """
    with training_ranks(device) as (ranks, here), ExitStack() as held:
        return _train(shards, bank, out, config, split, ranks, here, track, held)


def _train(
    shards: Sequence[Path],
    bank: Path,
    out: Path,
    config: TrainConfig,
    split: str | None,
    ranks: Ranks,
    here: torch.device,
    track: Track,
    held: ExitStack,
) -> RunResult:
    began = time.monotonic()
    first = ranks.rank == 0
    method = find_method(config.method)

    # ---- the inputs: which samples, which labels
    inputs = read_inputs(shards, bank, split, config, method, ranks, defer=here.type == "cuda")
    columns, datasets = inputs.columns, inputs.datasets
    whole_config = {}
    if first:
        held.enter_context(lock_run(out))
    start, checkpoint = 0, newest_checkpoint(out)
    if first:
        whole_config = claim_run(out, config, inputs.record, begun=checkpoint is not None)
    _refuse_too_many_pieces(config, ranks)

    # ---- the model: new, fine-tuned, or as the newest checkpoint has it
    torch.manual_seed(config.seed)
    if checkpoint is None:
        model, temperature, origin = begin(config, inputs.bank)
    else:
        loaded = load_checkpoint(checkpoint)
        start, model, temperature, origin = loaded.step, loaded.model, loaded.temperature, loaded.meta.get("init")
    _refuse_other_views(ranks.gather((start, inputs.record["bank_version"], inputs.record["manifests"])), out)
    if checkpoint is not None and start >= config.steps:
        _log.info("the run is finished: %d of %d steps are done, nothing to do", start, config.steps)
        if first and not (out / CURVES).exists():
            draw_curves(out)
        return RunResult(out, start, last_loss(out), checkpoint, time.monotonic() - began, 0)
    trained = _Trained(model, temperature).to(here).train()
    if config.channels_last:
        trained.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, temperature, config)
    average = copy_of(trained) if config.ema else None
    logged: list[list[float]] = []  # what `figures` gives of the steps since the last line of the log
    if checkpoint is not None:
        state = load_state(checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        logged += state["logged"]
        if average is not None:  # the checkpoint's model is the average
            trained.load_state_dict(state["weights"])
        _log.info("going on from step %d (%s)", start, checkpoint)
    if config.compile:
        model.compile(dynamic=False)  # one graph for each size of piece, at most two, and fast ones
    network = distribute(trained, ranks, here)
    meta = {
        "bank_version": inputs.bank.version,
        "encoder": inputs.bank.encoder,
        "merge": config.merge,
        "manifests": inputs.record["manifests"],
        "columns": list(columns.texts),
        "column_labels": [[f"{dataset}:{index}" for dataset, index in keys] for keys in columns.keys],
        **({"init": origin} if origin else {}),
        **({"ema": config.ema} if config.ema else {}),
    }
    _log.info(
        "%d datasets, %d samples, %d labels in %d columns, on %s",
        len(datasets), sum(map(len, inputs.mixture.sources)), sum(map(len, columns.keys)), len(columns),
        f"{ranks.world} processes" if ranks.world > 1 else here,
    )  # fmt: skip

    # ---- what stays the same in every step
    label_vectors = torch.from_numpy(columns.vectors).to(here)  # [N, C]
    own_labels = torch.from_numpy(columns.allowed).to(here)  # [D, N]
    parts = method.annotation_types(config)
    part_of = inputs.part_of(parts).to(here)  # [P, D]
    mean = torch.tensor(model.mean, device=here).view(3, 1, 1)
    std = torch.tensor(model.std, device=here).view(3, 1, 1)
    image_format = torch.channels_last if config.channels_last else torch.contiguous_format
    teacher = choose_teacher(inputs.bank, here)
    parameters = list(trained.parameters())
    on_gpu = here.type == "cuda"

    # ---- the steps
    log = RunLog(out, start, tensorboard=config.tensorboard) if first else None
    place = Place(start, checkpoint)
    unread: list[Tensor] = []  # rows for `figures` that were not read yet, because reading waits for a GPU
    met: list[str] = []  # corrupt samples that this process met since the last line
    skipped: set[str] = set()  # those of all processes
    final_loss, since, last_line, waited = math.nan, start, time.monotonic(), [0.0]
    batches = inputs.mixture.batches(start, config.steps, workers=config.workers, pin_memory=on_gpu)
    bar = (track if first else no_track)(_waited_for(batches, waited), "training", config.steps - start)
    with clear_faults(config, place):
        place.step += 1
        for batch in bar:
            step = batch.step
            torch.manual_seed(_seed_of(config.seed, step, ranks.rank))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * schedule_factor(step, config)
            batch = batch.to(here)

            # A loss is a mean over its pixels or boxes in the whole batch, so they are counted before the model runs.
            counts = method.counts(batch, len(datasets), config)  # [D]
            if ranks.world > 1:
                distributed.all_reduce(counts)
            # For each dataset one over its loss's count; gradients become the mean over processes, hence `world`.
            scale = ranks.world / (part_of.T @ (part_of @ counts.float())).clamp(min=1)  # [D]

            optimizer.zero_grad(set_to_none=True)
            sums = torch.zeros(len(datasets), device=here)
            pieces = _pieces(batch, config.accumulate)
            for number, piece in enumerate(pieces, start=1):
                images = (piece.images.float() / 255 - mean) / std  # [B, 3, S, S]
                with _gradients_stay(network, number < len(pieces)):
                    with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu and config.bf16):
                        embeddings, tau = network(images.contiguous(memory_format=image_format))  # [B, C, S/4, S/4]
                    allowed = own_labels[piece.dataset_ids] if config.label_space == "dataset" else None  # [B, N]
                    own = method.sums(
                        piece, embeddings, label_vectors, tau, allowed, teacher, len(datasets), config
                    )  # [D]
                    # A piece may have nothing for any loss, or for none with a temperature. Its gradients are 0 then,
                    # and not absent: other processes wait for them.
                    if not own.requires_grad:
                        own = own + embeddings.sum() * 0
                    ((own * scale).sum() + tau * 0).backward()
                sums += own.detach()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)
            optimizer.step()
            if average is not None:
                update_average(average, trained, config.ema, step)
            unread.append(torch.cat([norm.detach().float().view(1), sums, counts.float()]))
            met += batch.skipped

            done = step + 1
            line_due = done % config.log_every == 0 or done == config.steps
            checkpoint_due = done % config.checkpoint_every == 0 or done == config.steps
            if line_due or checkpoint_due:
                told = ranks.gather((torch.stack(unread).cpu(), waited[0], met))
                unread.clear()
                rows = figures([rows for rows, _, _ in told], part_of.cpu()).tolist()
                for place.step, row in enumerate(rows, start=done - len(rows) + 1):
                    refuse_no_number(row[0], row[1], out)
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
                            "parts": dict(zip(parts, means, strict=False)),
                            "datasets": dict(zip(datasets, means[len(parts) :], strict=True)),
                            "grad_norm": mean_norm,
                            "temperature": temperature().item(),
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
                    kept = average or trained
                    checkpoint = save_checkpoint(
                        out,
                        step=done,
                        model=kept.model,
                        temperature=kept.temperature,
                        state={
                            "optimizer": optimizer.state_dict(),
                            "logged": logged,
                            **({"weights": trained.state_dict()} if average is not None else {}),
                        },
                        config=whole_config,
                        meta=meta,
                        bank_folder_writer=inputs.bank.save_copy,
                        keep=config.keep_checkpoints,
                    )
                place.checkpoint = checkpoint
            place.step = done + 1

    assert checkpoint is not None  # the last step writes one
    if log is not None:
        log.close()
        draw_curves(out)
    return RunResult(out, config.steps, final_loss, checkpoint, time.monotonic() - began, len(skipped))


class _Trained(nn.Module):
    """The model and the temperature as one module, so that processes share the gradients of both."""

    def __init__(self, model: SegmentationModel, temperature: Temperature) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, C, h, w] and τ."""
        return self.model(images), self.temperature()


def _refuse_too_many_pieces(config: TrainConfig, ranks: Ranks) -> None:
    """Every process runs as many pieces as the others, none of them empty. Raises ConfigError."""
    share = config.batch_size // ranks.world
    if share < config.accumulate:
        raise ConfigError(
            f"the {share} samples of each process can't be run in {config.accumulate} pieces",
            fix="Use a larger --batch-size, or a smaller --accumulate",
        )


def _refuse_other_views(seen: Sequence[Any], out: Path) -> None:
    """Make sure that all processes see the same run, bank and shards. Raises ConfigError."""
    for rank, theirs in enumerate(seen):
        if theirs != seen[0]:
            raise ConfigError(
                f"process {rank} sees another checkpoint, bank or shards than process 0",
                where=out,
                fix="All machines must see the same files: put --out, --bank and --shards on a shared disk",
            )


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


def _pieces(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` nearly equal pieces."""
    if count == 1:
        return [batch]
    size = len(batch.keys)
    return [batch.part(size * i // count, size * (i + 1) // count) for i in range(count)]


def _gradients_stay(network: nn.Module, more: bool) -> AbstractContextManager[None]:
    """While `more` pieces of the batch come, gradients need not go to the other processes yet."""
    return network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext()


def _seed_of(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step + 1 + (rank << 40)) % 2**63
