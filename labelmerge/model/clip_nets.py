"""CLIP's own image tower as a dense encoder: `open_clip:MODEL`, whose space is that of the label vectors."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.model.decoders import PlainDecoder, resized
from labelmerge.model.weights import Hub, Package

STRIDE = 4
VALUES = "+values"  # what follows a model's name where the last attention gives its values alone
_PLAIN_MAPS = 4
_WIDTH = 256


class ClipEncoder(nn.Module):
    """A CLIP image tower: images → what its last blocks have at each patch, and each patch in the space of texts.

    Images [B, 3, H, W], H and W multiples of `divisor` → (maps, each [B, width, H/p, W/p], dense [B, D, H/p, W/p]).

    A patch's vector is what the tower would make of a class token there: norm and projection. With `values`, the last
    block gives each patch its own value instead of a mean over all patches, which keeps it at its place (Zhou et al.,
    "Extract Free Dense Labels from CLIP", ECCV 2022): the block is then its value and output projections alone.
    Positions are those of the pretrained grid, resized (bicubic).

    Attributes:
        published: the tower, whose names stand behind ``visual.`` in CLIP's files.
        output_dim: D.
        quick: the tower has QuickGELU.
    """

    def __init__(self, name: str, *, values: bool) -> None:
        super().__init__()
        config = open_clip.get_model_config(name)
        if config is None:
            raise ConfigError(f"open_clip has no model {name!r}", fix=did_you_mean(name, open_clip.list_models()))
        tower: Any = open_clip.create_model(name, load_weights=False).visual
        if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None or tower.conv1.bias is not None:
            raise ConfigError(
                f"the image tower of open_clip's {name} is not CLIP's plain ViT",
                fix="Use ViT-B-32, ViT-B-16, ViT-L-14 or another of that kind, or an encoder of timm (timm:NAME)",
            )
        self.published = tower
        self.values = values
        self.quick = bool(config.get("quick_gelu"))
        self.patch = int(tower.patch_size[0])
        self.divisor = math.lcm(STRIDE, self.patch)
        self.output_dim = int(tower.output_dim)
        self.mean, self.std = tuple(tower.image_mean), tuple(tower.image_std)
        count = len(tower.transformer.resblocks)
        self.chosen = sorted({count - 1 - (count * part) // _PLAIN_MAPS for part in range(_PLAIN_MAPS)})
        self.channels = (int(tower.conv1.out_channels),) * len(self.chosen)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        tower = self.published
        x = tower.conv1(images)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        first = tower.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self._positions(grid).to(x.dtype)
        x = tower.ln_pre(tower.patch_dropout(x))
        blocks, maps = tower.transformer.resblocks, []
        batch_first = tower.transformer.batch_first
        for place, block in enumerate(blocks):
            if self.values and place == len(blocks) - 1:
                x = self._values(block, x)
            else:
                x = block(x) if batch_first else block(x.transpose(0, 1)).transpose(0, 1)
            if place in self.chosen:
                maps.append(_as_map(x[:, 1:], grid))
        dense = tower.ln_post(x[:, 1:])
        if tower.proj is not None:
            dense = dense @ tower.proj
        return maps, _as_map(dense, grid)

    def _values(self, block: Any, x: Tensor) -> Tensor:
        """Each token's value through the attention's output projection, and nothing else of the block."""
        width, attention = x.shape[2], block.attn
        value = F.linear(block.ln_1(x), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        out: Tensor = attention.out_proj(value)
        return out

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """The positional embedding of a grid of patches, [1 + h·w, width]."""
        table = self.published.positional_embedding
        side = tuple(self.published.grid_size)
        if grid == side:
            return table  # type: ignore[no-any-return]
        patches = table[1:].T.reshape(1, -1, *side)
        patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([table[:1], patches[0].flatten(1).T])


class ClipNet(nn.Module):
    """A CLIP image tower and a plain decoder, whose output is added to the tower's own dense vectors.

    The decoder's last layer begins at zero, so before any training the network is CLIP, asked at every patch. Where
    label vectors have another dimension than CLIP's, its own vectors mean nothing and the decoder stands alone.

    Images [B, 3, H, W], H and W multiples of ``encoder.divisor`` → embeddings [B, C, H/4, W/4].
    """

    def __init__(self, name: str, embedding_dim: int, *, values: bool) -> None:
        super().__init__()
        self.encoder = ClipEncoder(name, values=values)
        self.decoder = PlainDecoder(self.encoder.channels, embedding_dim, _WIDTH)
        self.speaks = self.encoder.output_dim == embedding_dim
        if self.speaks:
            for parameter in self.decoder.head.parameters():
                nn.init.zeros_(parameter)
        # With values, the last block's other parts take part in nothing; the projection does only where it speaks.
        tower = self.encoder.published
        if values:
            last = tower.transformer.resblocks[-1]
            for part in (last.ln_2, last.mlp):
                part.requires_grad_(False)
        if not self.speaks:
            for part in (tower.ln_post, tower.proj):
                part.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        maps, dense = self.encoder(images)
        out: Tensor = self.decoder(maps, size)
        if self.speaks:
            # CLIP's vectors have norms of about 10; the decoder learns beside unit ones.
            out = out + resized(F.normalize(dense.float(), dim=1), size)
        return out


def published_weights(name: str, *, quick: bool) -> dict[str, Hub | Package]:
    """Where a model's weights are on the hub, by open_clip's tags; those of towers with the same activation."""
    found: dict[str, Hub | Package] = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        told = open_clip.get_pretrained_cfg(name, tag)
        owner, _, rest = str(told.get("hf_hub") or "").partition("/")
        repo, _, file = rest.partition("/")
        if repo and bool(told.get("quick_gelu")) == quick:
            found[tag] = Hub(f"{owner}/{repo}", file or "open_clip_model.safetensors")
    return found


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)
