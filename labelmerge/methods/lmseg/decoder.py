"""The parts of LMSeg's network behind the encoder: pixel decoder and category-guided query decoder.

Zhou et al., "LMSeg: Language-guided Multi-dataset Segmentation", ICLR 2023, section 3; the pixel decoder is that of
MaskFormer (Cheng et al., NeurIPS 2021). Attention is the standard one, with projections of queries, keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MLP_RATIO = 4


class PixelDecoder(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017) down to stride 4, and the memory that queries look at.

    Args:
        channels: of the encoder's maps, from fine to coarse.
        dim: D.
        layers: transformer layers over the coarsest map.
        heads: of their attention.
    """

    def __init__(self, channels: Sequence[int], dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(size, dim, 1, bias=False), _group_norm(dim)) for size in channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), _group_norm(dim), nn.ReLU(inplace=True))
            for _ in channels[1:]
        )
        self.masks = nn.Conv2d(dim, dim, 3, padding=1)
        self.memory = nn.Conv2d(channels[-1], dim, 1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, _MLP_RATIO * dim, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features of pixels and memory.

        Args:
            maps: from fine to coarse.

        Returns:
            ``[B, D, H/4, W/4]``, and ``[B, S, D]``, the coarsest map as a sequence with its places added.
        """
        coarsest = self.memory(maps[-1])
        _, dim, height, width = coarsest.shape
        places = sine_places(height, width, dim, coarsest.device).to(coarsest.dtype)
        memory = coarsest.flatten(2).transpose(1, 2) + places
        top = self.lateral[-1](maps[-1])
        if self.layers:
            for layer in self.layers:
                memory = layer(memory)
            top = top + memory.transpose(1, 2).reshape(coarsest.shape)
        for lateral, smooth, own in zip(
            reversed(self.lateral[:-1]), reversed(self.smooth), reversed(maps[:-1]), strict=True
        ):
            finer = lateral(own)
            top = smooth(finer + F.interpolate(top, size=finer.shape[2:], mode="nearest"))
        features: Tensor = self.masks(top)
        return features, memory


class DecoderLayer(nn.Module):
    """Queries look at each other, at the image, and at the words (section 3.4), or at the words first (table 5).

    Each is a residual branch behind a LayerNorm, which training skips for whole samples with probability `skip`.
    """

    def __init__(self, dim: int, heads: int, *, text: bool, skip: float, text_first: bool = False) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.visual = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.text = nn.MultiheadAttention(dim, heads, batch_first=True) if text else None
        self.mlp = nn.Sequential(nn.Linear(dim, _MLP_RATIO * dim), nn.GELU(), nn.Linear(_MLP_RATIO * dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4 if text else 3))
        self.memory_norm = nn.LayerNorm(dim)
        self.words_norm = nn.LayerNorm(dim) if text else None
        self.skip, self.text_first = skip, text_first

    def forward(self, queries: Tensor, memory: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """The next queries.

        Args:
            queries: ``[B, N, D]``.
            memory: ``[B, S, D]``.
            words: ``[B, K, D]``.
            padding: bool ``[B, K]``, true where there is no word.
        """
        own = self.norms[0](queries)
        queries = queries + self._kept(self.among(own, own, own, need_weights=False)[0])
        if self.text_first:
            queries = self._read(queries, words, padding)
        seen = self.memory_norm(memory)
        queries = queries + self._kept(self.visual(self.norms[1](queries), seen, seen, need_weights=False)[0])
        if not self.text_first:
            queries = self._read(queries, words, padding)
        out: Tensor = queries + self._kept(self.mlp(self.norms[-1](queries)))
        return out

    def _read(self, queries: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        if self.text is None or self.words_norm is None:
            return queries
        said = self.words_norm(words)
        looked = self.text(self.norms[2](queries), said, said, key_padding_mask=padding, need_weights=False)[0]
        return queries + self._kept(looked)

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or not self.skip:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.skip
        return branch * keep / (1 - self.skip)


class MaskHead(nn.Module):
    """Three linear layers from queries to the vectors that pixels are compared with."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim)
        )

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Mask logits ``[B, N, h, w]`` of queries ``[B, N, D]`` on features ``[B, D, h, w]``."""
        return torch.einsum("bnd,bdhw->bnhw", self.layers(queries), features)


def sine_places(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Sine encodings of all places of a map, row by row (Carion et al., ECCV 2020): float32 ``[height·width, dim]``."""
    half = dim // 2
    step = torch.arange(half // 2, dtype=torch.float32, device=device) * (2 / half)
    frequencies = 10_000**-step
    parts = []
    for size in (height, width):
        at = (torch.arange(size, dtype=torch.float32, device=device) + 1) * (2 * math.pi / size)
        angles = at[:, None] * frequencies
        parts.append(torch.cat([angles.sin(), angles.cos()], dim=1))  # [size, half or one less]
    rows = parts[0][:, None].expand(height, width, -1)
    columns = parts[1][None].expand(height, width, -1)
    places = torch.cat([rows, columns], dim=2).flatten(0, 1)
    return F.pad(places, (0, dim - places.shape[1]))


def _group_norm(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, dim), dim)
