"""Learned vectors before the texts of labels (Zhou et al., ICLR 2023, section 3.2), in CLIP's frozen text tower."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import EncoderError, LabelmergeError
from labelmerge.labels import LabelKey
from labelmerge.text import some

if TYPE_CHECKING:
    from labelmerge.encoders.prompted import PromptedTower

_log = logging.getLogger(__name__)


class LearnedPrompt(nn.Module):
    """The prompt, shared by all labels of all datasets, and what it makes of the labels of training.

    These vectors are part of the state, so that a checkpoint needs the tower for other labels alone.

    Attributes:
        context: float32 ``[L, width]``, what is learned.
        vectors: float32 ``[V, C]``, the labels of training, as of the last `state_dict`.
    """

    vectors: Tensor

    def __init__(self, spec: str, length: int, keys: Sequence[LabelKey], dim: int) -> None:
        """`spec`: of the tower, which isn't loaded yet. Raises UsageError, EncoderError: there is no such tower."""
        from labelmerge.encoders.prompted import text_width

        super().__init__()
        self.spec = spec
        self.context = nn.Parameter(nn.init.trunc_normal_(torch.empty(length, text_width(spec)), std=0.02))
        self.register_buffer("vectors", torch.zeros(len(keys), dim))
        self._row = {key: row for row, key in enumerate(keys)}
        self._texts: tuple[str, ...] = ()
        self._tower: PromptedTower | None = None

    def begin(self, texts: Sequence[str]) -> None:
        """Before training: the texts of the V labels. Raises UsageError, EncoderError: the tower is not available."""
        self._texts = tuple(texts)
        self._say_cut(self._texts)
        self.encode(self._texts[:1])

    def _say_cut(self, texts: Sequence[str]) -> None:
        lines = list(dict.fromkeys(line for text in texts for line in text.split("\n")))
        if cut := self._load().cut(lines, len(self.context)):
            _log.warning(
                "%s too long beside the %d learned vectors, and the text tower does not see the end: %s",
                "1 text is" if len(cut) == 1 else f"{len(cut)} texts are", len(self.context), some(map(repr, cut), 3),
            )  # fmt: skip

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, ``[n, C]``; of one with several lines, the mean of theirs, as in a bank.

        Raises UsageError, EncoderError: the tower is not available.
        """
        lines = list(dict.fromkeys(line for text in texts for line in text.split("\n")))
        place = {line: number for number, line in enumerate(lines)}
        each = self._load().encode(lines, self.context)
        if all("\n" not in text for text in texts):
            return each[[place[text] for text in texts]]
        return torch.stack(
            [F.normalize(each[[place[line] for line in text.split("\n")]].mean(0), dim=0) for text in texts]
        )

    def of_labels(self, keys: Sequence[LabelKey | None], texts: Sequence[str]) -> Tensor:
        """Vectors ``[n, C]`` of labels to ask for: those of training as they were kept, others by their texts.

        Raises EncoderError: there are others, and the tower is not available.
        """
        rows = [self._row.get(key, -1) if key is not None else -1 for key in keys]
        new = [place for place, row in enumerate(rows) if row < 0]
        found = self.vectors[[max(row, 0) for row in rows]].clone()
        if new:
            try:
                self._say_cut([texts[place] for place in new])
                found[new] = self.encode([texts[place] for place in new])
            except LabelmergeError as error:
                raise EncoderError(
                    f"the prompt was learned in {self.spec!r}, which labels that were not trained need: {error.what}",
                    where=error.where,
                    fix="Put its weights there, or ask for the labels of training alone",
                ) from error
        return found

    def state_dict(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:  # type: ignore[override]
        """With the vectors as the prompt now makes them."""
        if self._texts:
            with torch.no_grad():
                self.vectors.copy_(self.encode(self._texts))
        state: Mapping[str, Any] = super().state_dict(*args, **kwargs)
        return state

    def _load(self) -> PromptedTower:
        if self._tower is None:
            from labelmerge.encoders.prompted import PromptedTower

            self._tower = PromptedTower(self.spec, self.context.device)
        return self._tower
