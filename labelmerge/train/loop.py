"""The training loop, from shards and a bank to a run, to be read from top to bottom.

::

    labelmerge train --shards shards-out --bank bank --out run --preset tiny --steps 300

Step t depends on the weights before it and on (seed, t), nothing else: its batch is a function of them, the generators
are seeded with them, and so is the learning rate. A run that was killed therefore goes on from its newest checkpoint as
if nothing had happened; on a CPU to the last bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from labelmerge.embed.bank import Bank
from labelmerge.embed.baselines import merged_bank
from labelmerge.errors import CheckpointError, ConfigError, LabelmergeError
from labelmerge.loading.augment import Augmentation
from labelmerge.loading.mix import Mixture, Source, dead_workers, group_by_dataset
from labelmerge.loading.stream import ShardSet, find_splits
from labelmerge.model.build import build_model
from labelmerge.model.checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint
from labelmerge.model.device import choose_device, is_out_of_memory
from labelmerge.model.temperature import Temperature
from labelmerge.progress import Track, no_track
from labelmerge.train.columns import Columns, Labels, build_columns
from labelmerge.train.config import TrainConfig
from labelmerge.train.methods import Method, find_method
from labelmerge.train.optimizer import make_optimizer, schedule_factor
from labelmerge.train.run import CURVES, append_log, claim_run, draw_curves, read_log, rewind_log
from labelmerge.train.teacher import choose_teacher, refuse_other_teachers

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
        skipped: corrupt samples met and replaced in this call.
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

    Reseeds torch's global generators. Writes `out` as docs/architecture.md says ("A run").

    Args:
        shards: split folders, dataset folders, or folders of datasets.
        bank: the bank folder; its newest version.
        out: the run. The same call again continues it from its newest checkpoint; a finished run is left as it is.
        split: which split below dataset folders is trained on; None for all.
        device: ``cpu``, ``cuda``, …; by default a GPU if there is one.
        track: shows progress. If what it returns has tqdm's `set_postfix_str`, that is told the loss.

    Raises:
        ShardError, BankError, CheckpointError, OutputError: an input or the run can't be read or written.
        ConfigError: the configuration does not fit the shards, or `out` holds another run.
        LabelmergeError: the loss is no longer a number, or memory ran out.
    """
    began = time.monotonic()
    here = choose_device(device)
    method = find_method(config.method)

    # ---- the inputs: which samples, which labels
    language = Bank.load(bank)
    sources = _sources([ShardSet.open(folder) for folder in find_splits(shards, split)], config, method)
    mapping = Path(config.mapping) if config.mapping else None
    vectors = merged_bank(language, config.merge, [source.dataset for source in sources], mapping)
    labels: Labels = "all" if config.labels == "all" else "seen"
    columns = build_columns(vectors, sources, labels)
    mixture = _mixture(sources, columns, config)
    sets = [shard_set for source in sources for shard_set in source.sets]
    refuse_other_teachers(sets, vectors)
    inputs = {
        "bank": str(bank),
        "bank_version": vectors.version,
        "shards": [str(shard_set.folder) for shard_set in sets],
        "manifests": {f"{shard_set.dataset}/{shard_set.split}": shard_set.manifest_sha256 for shard_set in sets},
    }
    start, checkpoint = 0, _newest(out)
    whole_config = claim_run(out, config, inputs, begun=checkpoint is not None)
    meta = {
        "bank_version": vectors.version,
        "encoder": vectors.encoder,
        "merge": config.merge,
        "manifests": inputs["manifests"],
        "columns": list(columns.texts),
        "column_labels": [[f"{dataset}:{index}" for dataset, index in keys] for keys in columns.keys],
    }
    _log.info(
        "%d datasets, %d samples, %d labels in %d columns, on %s",
        len(sources), sum(map(len, sources)), sum(map(len, columns.keys)), len(columns), here,
    )  # fmt: skip

    # ---- the model, new or as the newest checkpoint has it
    torch.manual_seed(config.seed)
    if checkpoint is None:
        model = build_model(config.model, vectors.dim, pretrained=config.pretrained or None)
        temperature = Temperature(config.temperature)
    else:
        loaded = load_checkpoint(checkpoint)
        start, model, temperature = loaded.step, loaded.model, loaded.temperature
    if checkpoint is not None and start >= config.steps:
        _log.info("the run is finished: %d of %d steps are done, nothing to do", start, config.steps)
        if not (out / CURVES).exists():
            draw_curves(out)
        return RunResult(out, start, _last_loss(out), checkpoint, time.monotonic() - began, 0)
    model.to(here).train()
    temperature.to(here).train()
    optimizer = make_optimizer(model, temperature, config)
    logged: list[list[float]] = []  # loss, norm and parts of the steps since the last line of the log
    if checkpoint is not None:
        state = load_state(checkpoint)
        optimizer.load_state_dict(state["optimizer"])
        logged += state["logged"]
        _log.info("going on from step %d (%s)", start, checkpoint)
    rewind_log(out, start)

    # ---- what stays the same in every step
    label_vectors = torch.from_numpy(columns.vectors).to(here)  # [N, C]
    own_labels = torch.from_numpy(columns.allowed).to(here)  # [D, N]
    mean = torch.tensor(model.mean, device=here).view(3, 1, 1)
    std = torch.tensor(model.std, device=here).view(3, 1, 1)
    teacher = choose_teacher(vectors, here)
    parts = list(method.annotation_types(config))
    parameters = [*model.parameters(), *temperature.parameters()]
    on_gpu = here.type == "cuda"

    # ---- the steps
    unread: list[Tensor] = []  # rows for `logged` that were not read yet, because reading waits for a GPU
    skipped: set[str] = set()
    since, last_line = start, time.monotonic()
    batches = mixture.batches(start, config.steps, workers=config.workers, pin_memory=on_gpu)
    bar = track(batches, "training", config.steps - start)
    with dead_workers(), _clear_faults(config):
        for batch in bar:
            step = batch.step
            torch.manual_seed(_seed_of(config.seed, step))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * schedule_factor(step, config)
            for line in batch.skipped:
                if line not in skipped:
                    _log.warning("skipped %s", line)
            skipped.update(batch.skipped)

            batch = batch.to(here)
            images = (batch.images.float() / 255 - mean) / std  # [B, 3, S, S]
            with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu and config.bf16):
                embeddings = model(images)  # [B, C, S/4, S/4]
            allowed = own_labels[batch.dataset_ids] if config.label_space == "dataset" else None  # [B, N]
            losses = method.losses(
                batch, embeddings.float(), label_vectors, temperature(), allowed, teacher, config
            )  # each a scalar
            # A batch that is smaller than the number of datasets may have no sample of any loss.
            loss = torch.stack(list(losses.values())).sum() if losses else embeddings.sum() * 0
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)
            optimizer.step()
            nothing = torch.full((), math.nan, device=here)
            row = [loss, norm, *(losses.get(name, nothing) for name in parts)]
            unread.append(torch.stack([value.detach().float() for value in row]))

            done = step + 1
            line_due = done % config.log_every == 0 or done == config.steps
            checkpoint_due = done % config.checkpoint_every == 0 or done == config.steps
            if line_due or checkpoint_due:
                rows = torch.stack(unread).tolist()
                unread.clear()
                for which, row_read in enumerate(rows, start=done - len(rows) + 1):
                    if not (math.isfinite(row_read[0]) and math.isfinite(row_read[1])):
                        raise _not_a_number(which, row_read[0], checkpoint, out)
                logged += rows
            if line_due:
                mean_loss, mean_norm, *mean_parts = (_mean(values) for values in zip(*logged, strict=True))
                now = time.monotonic()
                append_log(
                    out,
                    {
                        "step": done,
                        "loss": mean_loss,
                        "parts": dict(zip(parts, mean_parts, strict=True)),
                        "grad_norm": mean_norm,
                        "temperature": temperature().item(),
                        "lr": config.lr * schedule_factor(step, config),
                        "samples_per_second": (done - since) * config.batch_size / max(now - last_line, 1e-9),
                        "skipped": len(skipped),
                    },
                )
                logged, since, last_line = [], done, now
                if hasattr(bar, "set_postfix_str"):
                    bar.set_postfix_str(f"loss {mean_loss:.3f}")
            if checkpoint_due:
                checkpoint = save_checkpoint(
                    out,
                    step=done,
                    model=model,
                    temperature=temperature,
                    state={"optimizer": optimizer.state_dict(), "logged": logged},
                    config=whole_config,
                    meta=meta,
                    bank_folder_writer=vectors.save_copy,
                    keep=config.keep_checkpoints,
                )

    assert checkpoint is not None  # the last step writes one
    draw_curves(out)
    return RunResult(out, config.steps, _last_loss(out), checkpoint, time.monotonic() - began, len(skipped))


def _sources(sets: Sequence[ShardSet], config: TrainConfig, method: Method) -> list[Source]:
    """The datasets to train on: those that some loss is for, evaluation sets only on request. Raises ConfigError."""
    wanted = set(method.annotation_types(config).values())
    kept, reasons = [], []
    for source in group_by_dataset(sets):
        if source.annotation_type not in wanted:
            reason = f"no loss for {source.annotation_type} samples in losses = {list(config.losses)}"
        elif any(shard_set.role == "eval" for shard_set in source.sets) and not config.eval_sets:
            reason = "it is an evaluation set (`--set eval_sets=true` trains on those too)"
        else:
            kept.append(source)
            continue
        reasons.append(f"{source.dataset} is left out: {reason}")
    if not kept:
        raise ConfigError(f"nothing to train on: {'; '.join(reasons)}")
    for reason in reasons:
        _log.info("%s", reason)
    return kept


def _mixture(sources: Sequence[Source], columns: Columns, config: TrainConfig) -> Mixture:
    share, remainder = divmod(config.batch_size, len(sources))
    if not config.weights and remainder:
        _log.info(
            "batch_size %d is not a multiple of the %d datasets: each has %d or %d samples in a batch, in rotation",
            config.batch_size, len(sources), share, share + 1,
        )  # fmt: skip
    return Mixture(
        sources,
        config.batch_size,
        config.seed,
        Augmentation(
            crop=config.crop,
            short_edge=config.short_edge,
            scale=(config.scale_min, config.scale_max),
            flip=config.flip,
            colour=config.colour,
            blur=config.blur,
            jpeg=config.jpeg,
        ),
        tables=columns.tables,
        weights=config.weights,
        cache_mb=config.cache_mb,
    )


def _newest(out: Path) -> Path | None:
    try:
        return find_checkpoint(out)
    except CheckpointError:
        return None


def _seed_of(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step + 1) % 2**63


def _mean(values: Sequence[float]) -> float:
    """The mean of what is a number; nan where nothing is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _last_loss(out: Path) -> float:
    lines = read_log(out)
    return float(lines[-1]["loss"]) if lines else math.nan


def _not_a_number(step: int, loss: float, checkpoint: Path | None, out: Path) -> LabelmergeError:
    what = "the gradient" if math.isfinite(loss) else f"the loss ({loss})"
    kept = f"the newest good checkpoint is {checkpoint.name}" if checkpoint else "there is no checkpoint yet"
    return LabelmergeError(
        f"{what} is no longer a number at step {step}; {kept}",
        where=out,
        fix="Train into another --out with a lower --lr, a longer warmup or a smaller clip",
    )


@contextmanager
def _clear_faults(config: TrainConfig) -> Iterator[None]:
    """Say in one line what batches of the wrong size come to."""
    size = f"batch_size {config.batch_size} and crop {config.crop}"
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise LabelmergeError(f"out of memory with {size}", fix="Use a smaller --batch-size or --crop") from error
        if "more than 1 value per channel" in str(error):
            what = f"the batch norms of {config.model} have nothing to average with {size}"
            raise ConfigError(what, fix="Use a larger --batch-size or --crop") from error
        raise
