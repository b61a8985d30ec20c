"""The processes of one training run: what `torchrun` starts, on one machine or many."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from labelmerge.device import choose_device
from labelmerge.errors import ConfigError, LabelmergeError, UsageError
from labelmerge.processes import Ranks, own_device
from labelmerge.train.config import TrainConfig

_PATIENCE = timedelta(minutes=30)  # how long a process waits for the others: rank 0 writes checkpoints meanwhile
_HEAD_START = 1.0  # seconds

_log = logging.getLogger(__name__)


class OtherProcessFailed(LabelmergeError):
    """The run failed, and another of its processes says why: this one need not."""


@contextmanager
def training_ranks(device: str | None) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's place in the run and its device, the processes connected while the block lasts.

    Without torchrun, one process. Where the block fails in one process it fails in all, and one of them alone raises
    the reason.

    Args:
        device: as the user names it; on a machine with several GPUs each process takes its own.

    Raises:
        UsageError: there is no such device, or the environment is not as torchrun makes it.
        OtherProcessFailed: in all processes but one, where the run has failed.
    """
    try:
        world = int(os.environ.get("WORLD_SIZE") or 1)
        store = None
        if world > 1:
            store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"the processes can't be connected ({error})", fix="Start them with torchrun") from error
    if store is None:
        yield Ranks(), _chosen(device)
        return
    try:
        refuse_one_gpu_for_all(device)
        here = _chosen(device)
        # Gradients go from GPU to GPU; what is logged, which lies in main memory, by gloo.
        backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
        yield Ranks(rank, world), here
        distributed.destroy_process_group()
    except (LabelmergeError, RuntimeError) as error:
        told = error if isinstance(error, LabelmergeError) else left_alone(error)
        if told is None:
            raise
        if not _may_speak(store):
            # torchrun ends all processes when the first one ends; the one that speaks must be done by then.
            time.sleep(_HEAD_START)
            _disconnect()
            raise OtherProcessFailed("another process of this run has failed") from error
        _disconnect()
        if told is error:
            raise
        raise told from error


def _chosen(device: str | None) -> torch.device:
    """The device; where it is one GPU among others, nothing of this process goes to another by default."""
    here = choose_device(own_device(device))
    if here.type == "cuda" and here.index is not None:
        torch.cuda.set_device(here)
    return here


def refuse_one_gpu_for_all(device: str | None) -> None:
    """Raises UsageError where several processes of one machine are sent to the same GPU, which NCCL does not serve."""
    if device is not None and device.startswith("cuda:") and int(os.environ.get("LOCAL_WORLD_SIZE") or 1) > 1:
        raise UsageError(
            f"every process of this machine would train on {device}",
            fix="Leave --device out: each takes a GPU of its own. CUDA_VISIBLE_DEVICES=2,3 chooses among them",
        )


def refuse_too_many_pieces(batch_size: int, pieces: int, ranks: Ranks) -> None:
    """Every process runs as many pieces as the others, none of them empty. Raises ConfigError."""
    share = batch_size // ranks.world
    if share < pieces:
        raise ConfigError(
            f"the {share} samples of each process can't be run in {pieces} pieces",
            fix="Use a larger --batch-size, or a smaller --accumulate",
        )


def refuse_graphs(config: TrainConfig, ranks: Ranks, device: torch.device) -> None:
    """Raises ConfigError where CUDA graphs are asked for that can't be, or would be wrong."""
    if not config.cuda_graphs:
        return
    reasons = {
        f"there are none on {device}": device.type != "cuda",
        f"they are for one process, not {ranks.world}": ranks.world > 1,
        f"each of {config.accumulate} pieces would overwrite the gradients of the one before": config.accumulate > 1,
        "they can't compute activations again (--recompute)": config.recompute,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"no CUDA graphs: {reason}", fix="Leave --cuda-graphs out")


def refuse_other_views(seen: Sequence[Any], out: Path) -> None:
    """Make sure that all processes see the same run, bank and shards. Raises ConfigError."""
    for rank, theirs in enumerate(seen):
        if theirs != seen[0]:
            raise ConfigError(
                f"process {rank} sees a different checkpoint, bank or shards than process 0",
                where=out,
                fix="All machines must see the same files: put --out, --bank and --shards on a shared disk",
            )


def distribute(module: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """The module as all processes train it together: gradients are averaged over them.

    Batch norm on GPUs averages over the batches of all processes. On CPUs torch has no such layer: there each process
    has its own statistics, and the log says so.

    Every parameter must take part in every backward pass of every process; the loop sees to that.
    """
    if ranks.world == 1:
        return module
    if device.type == "cuda":
        module = synchronised(module)
        # Synchronised statistics are equal already, so they need not be sent around before every step.
        return DistributedDataParallel(
            module, device_ids=[device], broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if any(part.training for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)):
        _log.warning("batch norm is not synchronised among CPU processes: each has its own statistics")
    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def synchronised(module: nn.Module) -> nn.Module:
    """The module, whose batch norms average over all processes; with the same parameters.

    timm's batch norms hold the activation after them (EfficientNet, RegNet), which torch's own conversion drops.
    """
    from timm.layers import convert_sync_batchnorm

    found: nn.Module = convert_sync_batchnorm(module)
    return found


def left_alone(error: Exception) -> LabelmergeError | None:
    """One line for what torch raises in a process whose peers are gone; None for other errors."""
    known = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Socket")
    if not isinstance(error, distributed.DistError) and not any(words in str(error) for words in known):
        return None
    if "NCCL" in str(error):
        return LabelmergeError(
            f"the GPUs lost contact with each other, or another process ended ({str(error).splitlines()[0]})",
            fix="NCCL_DEBUG=WARN lets NCCL say why. The same command resumes from the newest checkpoint",
        )
    return LabelmergeError(
        f"another process of this run ended without saying why ({str(error).splitlines()[0]})",
        fix="Usually its machine's memory ran out. The same command resumes from the newest checkpoint",
    )


def _disconnect() -> None:
    """Let go of the others after a failure: threads of gloo that outlive the interpreter abort the process.

    Not among GPUs, where this could wait for peers that never answer; they notice when this process ends.
    """
    if distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def _may_speak(store: Store) -> bool:
    """Whether this is the first process that asks."""
    try:
        return bool(store.add("labelmerge/failure", 1) == 1)
    except RuntimeError:  # the process that held the store is gone, and with it whoever may have spoken
        return True
