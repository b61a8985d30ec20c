"""Decoders: an encoder's feature maps → pixel embeddings at stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, cat, nn
from torch.nn import functional as F


class PyramidDecoder(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) of separable convolutions, with the mean of the whole image at its top.

    Maps of growing stride, each [B, channels[i], H/strides[i], W/strides[i]] → [B, C, h, w] of any size asked for.

    GroupNorm, because batches on a CPU are small, and because then the pieces of a batch make one step.

    Args:
        channels: of the maps, finest first.
        width: channels of the pyramid, a multiple of 8.
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int, width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.smooth = nn.ModuleList(separable(width, width) for _ in channels)
        self.fuse = separable(width * len(channels), width)
        self.head = nn.Conv2d(width, embedding_dim, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        sides = [lateral(map_) for lateral, map_ in zip(self.laterals, maps, strict=True)]
        below = sides[-1] + self.whole(sides[-1])
        levels = [below]
        for side in sides[-2::-1]:
            below = side + resized(below, (side.shape[2], side.shape[3]))
            levels.append(below)
        smooth = [resized(conv(level), size) for conv, level in zip(self.smooth, reversed(levels), strict=True)]
        out: Tensor = self.head(self.fuse(cat(smooth, dim=1)))
        return out


class PlainDecoder(nn.Module):
    """For encoders whose maps all have one stride, as plain ViTs: concatenated, and upsampled in two steps.

    Maps, each [B, channels[i], H/p, W/p] → [B, C, h, w] of any size asked for.
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(sum(channels), width, 1, bias=False), nn.GroupNorm(8, width), nn.GELU())
        self.steps = nn.ModuleList(separable(width, width) for _ in range(2))
        self.head = nn.Conv2d(width, embedding_dim, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        x = self.mix(cat(list(maps), dim=1))
        half = (max(x.shape[2], -(-size[0] // 2)), max(x.shape[3], -(-size[1] // 2)))
        for conv, at in zip(self.steps, (half, size), strict=True):
            x = conv(resized(x, at))
        out: Tensor = self.head(x)
        return out


def separable(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3 × 3 convolution of each channel by itself, then one across the channels."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False),
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.ReLU(inplace=True),
    )


def resized(map_: Tensor, size: tuple[int, int]) -> Tensor:
    """The map at another size, bilinear, of the same kind; itself where the size is its own."""
    if map_.shape[2:] == size:
        return map_
    # Autocast would give float32, and with it all that follows up to the next convolution.
    with without_autocast(map_.device):
        return F.interpolate(map_, size=size, mode="bilinear", align_corners=False)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast on the device while this is open, where it has any (``meta`` has none)."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
