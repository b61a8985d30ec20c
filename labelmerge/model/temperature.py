"""The learnable temperature of SSIW's softmax (eq. 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """A positive number τ, learned as log τ and kept between two bounds.

    Attributes:
        log_tau: the parameter, a scalar.
        bounds: log of the lowest and of the highest τ; saved with it.
    """

    def __init__(self, initial: float = 0.07, *, lowest: float = 0.01, highest: float = 1.0) -> None:
        super().__init__()
        if not 0 < lowest <= initial <= highest:
            raise ValueError(f"a temperature of {initial} is not within {lowest} to {highest}, above 0")
        self.log_tau = nn.Parameter(torch.tensor(math.log(initial)))
        self.bounds: Tensor
        self.register_buffer("bounds", torch.tensor([math.log(lowest), math.log(highest)]))

    def forward(self) -> Tensor:
        """τ, a scalar tensor."""
        # The parameter itself is put back: clamping the result would leave no gradient to return from a bound by.
        with torch.no_grad():
            self.log_tau.clamp_(self.bounds[0], self.bounds[1])
        return self.log_tau.exp()
