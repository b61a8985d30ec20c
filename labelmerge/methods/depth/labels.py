"""Labels as a second input: the vector of each pixel's label, projected and added behind the first convolution.

SSIW, section 4.3 and figure 9: a 1 × 1 convolution of the label embeddings' map is added to the features of the
network's first convolution. Projected is each label's vector and not each pixel's, which is the same, so there is no
tensor of height · width · dimension.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from labelmerge.errors import ConfigError
from labelmerge.methods.method import part_in_step
from labelmerge.model.build import SegmentationModel


class LabelInput(nn.Module):
    """Adds the projected label vectors to the output of a network's first convolution.

    The projection starts at 0, so a network that sees labels starts as one that does not.
    """

    def __init__(self, dim: int, model: SegmentationModel) -> None:
        super().__init__()
        first = next((part for part in model.net.modules() if isinstance(part, nn.Conv2d)), None)
        if first is None or first.in_channels != 3:
            raise ConfigError(
                f"{model.name} has no first convolution that labels could be added to", fix="Set depth_labels to none"
            )
        self.projection = nn.Linear(dim, first.out_channels, bias=False)
        nn.init.zeros_(self.projection.weight)
        self._shown: tuple[Tensor, Tensor] | None = None
        first.register_forward_hook(self._add)

    def show(self, maps: Tensor | None, vectors: Tensor) -> None:
        """Set the labels that the network sees with the next images.

        Args:
            maps: int64 ``[B, H, W]``, rows of `vectors`, negative where the label isn't known; None: nowhere known.
            vectors: ``[N, C]``.
        """
        self._shown = None if maps is None else (maps, vectors)

    def unused(self) -> Tensor:
        """0, for a step without any label."""
        return part_in_step(self.projection.weight)

    def _add(self, conv: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
        if self._shown is None:
            return out
        maps, vectors = self._shown
        height, width = cast(Tensor, inputs[0]).shape[2:]  # padded, at the right and at the bottom
        rows, columns = (
            _under(size, steps, out.device) for size, steps in zip((height, width), out.shape[2:], strict=True)
        )
        inside = (rows < maps.shape[1])[:, None] & (columns < maps.shape[2])
        seen = maps[:, rows.clamp(max=maps.shape[1] - 1)][:, :, columns.clamp(max=maps.shape[2] - 1)]
        seen = (seen.clamp(min=-1) + 1) * inside  # 0: not known
        table = self.projection(vectors)
        table = torch.cat([table.new_zeros(1, table.shape[1]), table])
        return out + embedding(seen, table).permute(0, 3, 1, 2).to(out.dtype)


def _under(size: int, count: int, device: torch.device) -> Tensor:
    """The pixel of `size` under the centre of each of `count` features."""
    return (2 * torch.arange(count, device=device) + 1) * size // (2 * count)
