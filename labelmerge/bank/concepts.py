"""The vectors of the shipped texts in a bank's space, for labels that the curated tables don't know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.bank.versions import prune
from labelmerge.errors import LabelmergeError
from labelmerge.progress import Track, no_track, once
from labelmerge.remote import place_here

if TYPE_CHECKING:
    from labelmerge.encoders.encoders import TextEncoder

CONCEPTS = "concepts"
"""The folder beside a bank's versions that keeps these vectors: a bank of its own, whose texts are its names."""

_BATCH = 256


def concept_encoder(
    bank: Bank, *, device: str | None = None, track: Track = no_track
) -> Callable[[Sequence[str]], npt.NDArray[np.float32]] | None:
    """A function that gives texts the vectors that the bank's encoder gives them, which it loads when it first must.

    Vectors are kept in the bank's folder (of a bank at a URL, in the one in the cache), under `CONCEPTS`, and found
    there the next time. A folder that can't be written or read only means that they are made anew.

    Args:
        bank: whose encoder speaks.
        device: where it runs.
        track: progress, in batches.

    Returns:
        texts → unit vectors, float32 [n, D]; None where no encoder made the bank's vectors. The function raises
        EncoderError or BankError where the encoder is not available or is not the bank's.
    """
    if not bank.probe.size:
        return None
    folder = place_here(bank.folder) / CONCEPTS if bank.folder is not None else None
    known: dict[str, npt.NDArray[np.float32]] = {}
    loaded: list[TextEncoder] = []

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not known and folder is not None:
            known.update(_stored(folder, bank))
        wanted = [text for text in dict.fromkeys(texts) if text not in known]
        if wanted:
            if not loaded:
                loaded.append(once(lambda: _load(bank, device), "loading the encoder", track))
            known.update(zip(wanted, _vectors(loaded[0], wanted, track), strict=True))
            if folder is not None:
                _store(folder, bank, known)
        return np.stack([known[text] for text in texts])

    return encode


def _load(bank: Bank, device: str | None) -> TextEncoder:
    from labelmerge.encoders.encoders import load_encoder

    encoder = load_encoder(bank.encoder, device)
    bank.check_encoder(encoder)
    return encoder


def _vectors(encoder: TextEncoder, texts: Sequence[str], track: Track) -> npt.NDArray[np.float32]:
    """The vector of each text: the normalised mean of those of its lines."""
    lines = [text.split("\n") for text in texts]
    flat = sorted({line for own in lines for line in own}, key=lambda line: (len(line), line))  # little padding
    starts = range(0, len(flat), _BATCH)
    made = [encoder.encode(flat[at : at + _BATCH]) for at in track(starts, "embedding shipped texts", len(starts))]
    vector = dict(zip(flat, np.concatenate(made), strict=True))
    means = np.stack([np.mean([vector[line] for line in own], axis=0) for own in lines]).astype(np.float64)
    unit: npt.NDArray[np.float32] = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _stored(folder: Path, bank: Bank) -> dict[str, npt.NDArray[np.float32]]:
    """What the folder keeps for this bank's encoder; nothing where there is none, or it is damaged."""
    try:
        kept = Bank.load(folder)
    except LabelmergeError:
        return {}
    if not kept.same_encoder(bank) or kept.dim != bank.dim:
        return {}
    return dict(zip(kept.texts, kept.vectors, strict=True))


def _store(folder: Path, bank: Bank, known: dict[str, npt.NDArray[np.float32]]) -> None:
    texts = sorted(known)
    kept = Bank(
        encoder=bank.encoder,
        identity=bank.identity,
        prompt=bank.prompt,
        keys=[(CONCEPTS, number) for number in range(len(texts))],
        names=texts,
        texts=texts,
        vectors=np.stack([known[text] for text in texts]).astype(np.float32),
        tokens=[0] * len(texts),
        truncated=[False] * len(texts),
        probe=bank.probe,
    )
    with suppress(LabelmergeError):  # a cache: to do without it is slower and no more
        kept.save(folder)
        prune(folder, keep=1)
