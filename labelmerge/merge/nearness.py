"""How near labels lie to the shipped texts in a bank's space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.bank.prompt import Prompt
from labelmerge.merge.clustering import calibrated_threshold, own_cosines
from labelmerge.merge.lexicon import Lexicon, Sense

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts → unit vectors, float32 [n, D], in the space of a bank."""

_PAIRS = 2000  # fewer pairs of one dataset's own labels say nothing of their highest quantiles
_CAUTIOUS = 0.9


class Nearness:
    """Compares the labels of a bank with the meanings that ship.

    Args:
        bank: N labels.
        known: what ships.
        encode: gives the vectors of texts that the bank lacks, and is asked only when they are needed.
    """

    def __init__(self, bank: Bank, known: Lexicon, encode: Encode | None) -> None:
        self._bank, self._known, self._encode = bank, known, encode
        self._prompt = Prompt.stored(bank.prompt)
        # A bank of classes (`labelmerge.merge.baselines`) has no texts.
        self._rows = {text: row for row, text in reversed(list(enumerate(bank.texts)))} if bank.probe.size else {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._all: dict[bool, tuple[list[Sense], npt.NDArray[np.float32]]] = {}

    @cached_property
    def limit(self) -> float:
        """The cosine from which on two texts mean the same; cautious where the bank has too few labels to tell."""
        pairs = len(own_cosines(self._bank))
        found = calibrated_threshold(self._bank) if pairs else _CAUTIOUS
        return found if pairs >= _PAIRS else max(found, _CAUTIOUS)

    def cosines(self, row: int, senses: Sequence[Sense]) -> list[float] | None:
        """The largest cosine of a label with each meaning's texts; None where some have no vector."""
        if not self._rows:
            return None
        texts = [self._texts(sense, row) for sense in senses]
        if not self._make([text for own in texts for text in own]):
            return None
        vector = self._bank.vectors[row]
        return [max((float(vector @ self._vectors[text]) for text in own), default=-1.0) for own in texts]

    def nearest(self, row: int) -> tuple[Sense, float] | None:
        """The meaning that lies nearest to a label, and its cosine; None where none has a vector."""
        if not self._rows:
            return None
        described = self._bank.described[row]
        if described not in self._all:
            # Of meanings that share a text the one that most datasets have comes last, and is kept.
            senses = sorted(self._known.distinct_senses, key=lambda sense: sum(sense.weights.values()))
            texts = {text: sense for sense in senses for text in self._texts(sense, row)}
            if not self._make(list(texts)):
                texts = {text: sense for text, sense in texts.items() if text in self._vectors}
            vectors = [self._vectors[text] for text in texts]
            self._all[described] = (
                list(texts.values()),
                np.stack(vectors) if vectors else np.zeros((0, self._bank.dim), np.float32),
            )
        senses, matrix = self._all[described]
        if not senses:
            return None
        cosines = matrix @ self._bank.vectors[row]
        best = int(np.argmax(cosines))
        return senses[best], float(cosines[best])

    def _texts(self, sense: Sense, row: int) -> list[str]:
        """A meaning's texts as the bank would have them, each description once; a bare name has bare names."""
        if not self._bank.described[row]:
            return [self._prompt.text(name, "") for name, _ in sense.texts]
        named = {description: name for name, description in reversed(sense.texts) if description}
        return [self._prompt.text(name, description) for description, name in named.items()]

    def _make(self, texts: Sequence[str]) -> bool:
        """Find the vectors of texts; whether all could be had."""
        wanted = []
        for text in dict.fromkeys(texts):
            if text in self._rows:
                self._vectors[text] = self._bank.vectors[self._rows[text]]
            elif text not in self._vectors:
                wanted.append(text)
        if wanted and self._encode is not None:
            self._vectors.update(zip(wanted, self._encode(wanted), strict=True))
            wanted = []
        return not wanted
