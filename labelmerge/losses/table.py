"""What a label may be and what competes with it: the relations between labels, in the form the pixel losses read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

# The logarithm of "does not compete": finite, so that neither 0 · ∞ nor ∞ - ∞ can arise.
NOTHING = -3.0e38
# Rows are padded to a multiple of this, so that the fused kernel reads several entries at once.
_ALIGNED = 16


@dataclass(frozen=True, eq=False)
class LabelTable:
    """For each of L labels, which of the N columns (concepts) it may stand for, and how the others compete with it.

    With s_c = cosine / τ of column c, P the positives of a pixel's label and w its negatives, the pixel's loss is
    ``-log(Σ_P exp s / (Σ_P exp s + Σ_¬P w · exp s))``. One positive and w = 1 everywhere else is SSIW's softmax over
    all columns (Yin et al., IJCV 2024, eq. 3); several positives are NLL+ (Bevandić et al., IJCV 2024). With `target`
    it is the cross-entropy ``log(Σ_P exp s + Σ_¬P w · exp s) - Σ target · s``.

    Make it once, outside the loop, and move it to the device with `to`: checking its content there would wait for the
    GPU. Do not change the tensors afterwards.

    Args:
        positive: bool [L, N], the columns that the label may stand for; at least one in each row.
        negative: float [L, N] in 0..1, how strongly each other column competes: 1 fully, 0 not at all, which makes it
            neither right nor wrong. Not read where `positive`. Float64 losses want it in float64.
        target: float [L, N], how the label is shared among its positives: rows of at least 0 that sum to 1 (within
            1e-4) and are 0 where not `positive`. None, the default, asks only for their sum.

    Attributes:
        bias: [L, N padded to a multiple of 16], log2 of `negative`, -inf where `positive`, `NOTHING` where 0.
        wanted: `target`, padded alike, or None.
        columns: int64 [L, K], the positives of each label; in rows with fewer than K the first one is repeated.
        counts: int32 [L], how many there are.
        fours: int64 [L], whose bit k is whether there are any among the columns 4 k to 4 k + 3, or 256, 512, … further.

    Raises:
        ValueError: shapes or dtypes that are not these, a label without any positive, or numbers out of range.
    """

    positive: Tensor
    negative: Tensor
    target: Tensor | None = None
    bias: Tensor = field(init=False, repr=False)
    wanted: Tensor | None = field(init=False, repr=False)
    columns: Tensor = field(init=False, repr=False)
    counts: Tensor = field(init=False, repr=False)
    fours: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        positive, negative, target = self.positive, self.negative, self.target
        shape = tuple(positive.shape)
        if positive.dtype != torch.bool or positive.ndim != 2 or 0 in shape:
            raise ValueError(f"positive is not bool [L, N] but {positive.dtype} {list(shape)}")
        for name, each in (("negative", negative), ("target", target)):
            if each is not None and (tuple(each.shape) != shape or not each.is_floating_point()):
                raise ValueError(f"{name} is not float {list(shape)}, as positive, but {each.dtype} {list(each.shape)}")
        if lonely := (~positive.any(1)).nonzero().flatten().tolist():
            raise ValueError(f"label {lonely[0]} has no positive column ({len(lonely)} of {shape[0]} labels have none)")
        weights = negative.masked_fill(positive, 1)
        _refuse(~((weights >= 0) & (weights <= 1)), weights, "negative", "is not within 0..1")
        if target is not None:
            _refuse(~((target >= 0) & (positive | (target == 0))), target, "target", "is below 0, or is not positive")
            sums = target.sum(1, keepdim=True)
            _refuse((sums - 1).abs() > 1e-4, sums, "the sum of target", "is not 1")
        most = int(positive.sum(1).max())
        # Positives first, in their order.
        columns = positive.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        counts = positive.sum(1)
        columns = torch.where(torch.arange(most, device=columns.device) < counts[:, None], columns, columns[:, :1])
        # half precision does not reach as far as NOTHING
        bias = weights.to(_at_least_float32(weights)).log2().masked_fill(weights == 0, NOTHING)
        bias = _padded(bias.masked_fill(positive, -torch.inf), NOTHING)
        wanted = None if target is None else _padded(target.to(_at_least_float32(target)), 0)
        self._set(bias=bias, wanted=wanted, columns=columns.contiguous(), counts=counts.int(), fours=_fours(positive))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LabelTable:
        """The same on `device`, its numbers in `dtype` (float32 or float64) where given; itself if it is so already."""
        device = torch.device(device)
        moved = object.__new__(LabelTable)
        same = True
        for name, value in vars(self).items():
            kind = dtype if isinstance(value, Tensor) and value.is_floating_point() else None
            new = value if value is None else value.to(device, kind or value.dtype)
            same &= new is value
            moved._set(**{name: new})
        return self if same else moved

    def _set(self, **values: Tensor | None) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _fours(positive: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(positive, (0, -positive.shape[1] % 256)).view(len(positive), -1, 64, 4)
    return (padded.any(3).any(1).long() << torch.arange(64, device=positive.device)).sum(1)


def _padded(rows: Tensor, value: float) -> Tensor:
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % _ALIGNED), value=value).contiguous()


def _refuse(bad: Tensor, numbers: Tensor, name: str, why: str) -> None:
    """ValueError about the first of the bad numbers, if there is one."""
    if places := bad.nonzero().tolist():
        row, column = places[0]
        where = f"[{row}, {column}]" if numbers.shape[1] > 1 or name != "the sum of target" else f" of label {row}"
        raise ValueError(f"{name}{where} = {numbers[row, column].item():g} {why}")
