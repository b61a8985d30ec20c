"""The vectors of the shipped sentences in a bank's space, for labels that the curated tables don't know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.progress import Track, no_track

_BATCH = 256


def concept_encoder(
    bank: Bank, *, device: str | None = None, track: Track = no_track
) -> Callable[[Sequence[str]], npt.NDArray[np.float32]] | None:
    """A function that gives texts the vectors that the bank's encoder gives them, which it loads when first asked.

    Args:
        bank: whose encoder speaks.
        device: where it runs.
        track: progress, in batches.

    Returns:
        texts → unit vectors, float32 [n, D]; None where no encoder made the bank's vectors. The function raises
        EncoderError or BankError where the encoder can't be had or is not the bank's.
    """
    if not bank.probe.size:
        return None

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        from labelmerge.encoders.encoders import load_encoder

        encoder = load_encoder(bank.encoder, device)
        bank.check_encoder(encoder)
        lines = [text.split("\n") for text in texts]
        flat = list(dict.fromkeys(line for own in lines for line in own))
        starts = range(0, len(flat), _BATCH)
        made = [
            encoder.encode(flat[start : start + _BATCH])
            for start in track(starts, "embedding shipped sentences", len(starts))
        ]
        vector = dict(zip(flat, np.concatenate(made), strict=True))
        means = np.stack([np.mean([vector[line] for line in own], axis=0) for own in lines]).astype(np.float64)
        unit: npt.NDArray[np.float32] = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
        return unit

    return encode
