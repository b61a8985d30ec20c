"""The paper's two networks: SegFormer on a Mix Transformer, and HRNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders.mix_transformer import Attention, Block, Mlp
from torch import Tensor, cat, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from labelmerge.model.decoders import resized, without_autocast
from labelmerge.model.depthwise import depthwise_gelu, suits
from labelmerge.model.together import Part, cast_together, parts_of


class FusedAttention(Attention):  # type: ignore[misc]  # smp has no types
    """The same attention, but softmax and products in one kernel: no matrix of all pairs, and no casts of it."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, count, channels = x.shape
        heads, each = self.num_heads, channels // self.num_heads
        kind = x.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # once, and not for queries, keys and values each
        q = self.q(x).view(batch, count, heads, each).transpose(1, 2)
        if self.sr_ratio > 1:
            x = self.sr(x.transpose(1, 2).reshape(batch, channels, height, width)).flatten(2).transpose(1, 2)
            x = self.norm(x)
        k, v = self.kv(x).view(batch, -1, 2, heads, each).permute(2, 0, 3, 1, 4)
        dropped = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, scale=self.scale)
        out: Tensor = self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, count, channels)))
        return out


class FusedMlp(Mlp):  # type: ignore[misc]  # smp has no types
    """The same Mix-FFN, its convolution and GELU in one kernel where there is one."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.fc1(x)
        if suits(x):
            conv = self.dwconv.dwconv
            x = depthwise_gelu(x.view(len(x), height, width, -1), conv.weight, conv.bias).flatten(1, 2)
        else:
            x = self.act(self.dwconv(x, height, width))
        out: Tensor = self.drop(self.fc2(self.drop(x)))
        return out


class FastBlock(Block):  # type: ignore[misc]  # smp has no types
    """The same block in two halves, which may be compiled and of which nothing need be kept for the backward pass.

    A half begins with its norm, so that compiled it writes what the next product reads, without a cast between them.
    Drop path stays outside: its rate differs from block to block, and each rate would be a graph of its own.
    """

    recomputes = False
    parts: tuple[Part, ...] = ()  # whose weights are cast together; none where it is compiled

    def forward(self, x: Tensor) -> Tensor:
        if self.recomputes and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._both, x, use_reentrant=False)
            return out
        return self._both(x)

    def compile(self, **options: Any) -> None:  # of its halves
        self.parts = ()  # the compiler has its own way with casts
        self._attend = torch.compile(self._attend, **options)  # type: ignore[method-assign]
        self._mix = torch.compile(self._mix, **options)  # type: ignore[method-assign]

    def _both(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens: Tensor = x.flatten(2).transpose(1, 2)
        with cast_together(self.parts, x.device):
            tokens = tokens + self.drop_path(self._attend(tokens, height, width))
            tokens = tokens + self.drop_path(self._mix(tokens, height, width))
        return tokens.transpose(1, 2).view(batch, channels, height, width)

    def _attend(self, tokens: Tensor, height: int, width: int) -> Tensor:
        out: Tensor = self.attn(self.norm1(tokens), height, width)
        return out

    def _mix(self, tokens: Tensor, height: int, width: int) -> Tensor:
        out: Tensor = self.mlp(self.norm2(tokens), height, width)
        return out


class SegFormer(nn.Module):
    """SegFormer (Xie et al., NeurIPS 2021), its decoder at stride 4 without the last upsampling.

    Images [B, 3, H, W], H and W multiples of 32 → embeddings [B, C, H/4, W/4].

    The decoder gives what the paper's does, in another order. There each map goes through a linear layer, is upsampled
    and concatenated, and a 1 × 1 convolution follows. All of this is linear, and upsampling commutes with mixing
    channels: so each map meets the product of both matrices at its own size, and sums are upsampled. For B5 at 640²
    this is a third less work in the whole network, and the concatenated map (2.5 GB at batch 16) never exists.

    Args:
        size: 0 to 5, the B0..B5 of the paper.
    """

    def __init__(self, size: int, embedding_dim: int) -> None:
        super().__init__()
        whole = smp.Segformer(
            f"mit_b{size}",
            encoder_weights=None,
            decoder_segmentation_channels=256 if size < 2 else 768,  # as in the paper, table 6
            classes=embedding_dim,
            upsampling=1,
        )
        self.encoder = whole.encoder
        self.decoder = whole.decoder
        self.head = whole.segmentation_head
        for part in self.encoder.modules():  # the same parameters by the same names
            if type(part) is Attention:
                part.__class__ = FusedAttention
            elif type(part) is Mlp:
                part.__class__ = FusedMlp
            elif type(part) is Block:
                part.__class__ = FastBlock
        for block in self.regions():
            block.parts = tuple(parts_of(block))

    def recompute(self) -> None:
        """See `SegmentationModel.recompute`."""
        for block in self.regions():
            block.recomputes = True

    def regions(self) -> list[FastBlock]:
        """What recurs, to be compiled once for each of the four stages instead of for each block."""
        return [part for part in self.encoder.modules() if isinstance(part, FastBlock)]

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self._decoded(self.maps(images)))
        return out

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps."""
        return tuple(self.encoder.out_channels[-4:])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features at stride 4, 8, 16 and 32, channels-last in memory, as tokens are."""
        maps, x, encoder = [], images, self.encoder
        for stage in range(1, 5):
            for part in ("patch_embed", "block", "norm"):
                x = getattr(encoder, f"{part}{stage}")(x)
            maps.append(x)
        return maps

    def without_head(self) -> SegFormer:
        """The same for `maps` alone."""
        del self.decoder, self.head
        return self

    def _decoded(self, maps: Sequence[Tensor]) -> Tensor:
        """The decoder's [B, channels, H/4, W/4]."""
        convolution, *rest = self.decoder.fuse_stage
        layers = [stage.linear for stage in self.decoder.mlp_stage][::-1]  # theirs begin with the coarsest
        width = layers[0].out_features
        with without_autocast(maps[0].device):
            mixes = convolution.weight.flatten(1).split(width, dim=1)[::-1]
            products = [mix @ layer.weight for mix, layer in zip(mixes, layers, strict=True)]
            bias = sum(mix @ layer.bias for mix, layer in zip(mixes, layers, strict=True))
        size = (maps[0].shape[2], maps[0].shape[3])
        x = F.linear(maps[0].permute(0, 2, 3, 1), products[0], bias).permute(0, 3, 1, 2)
        for map_, product in zip(maps[1:], products[1:], strict=True):
            mixed = F.linear(map_.permute(0, 2, 3, 1), product).permute(0, 3, 1, 2)
            x = x + resized(mixed, size)
        for part in rest:
            x = part(x)
        return x


class HRNet(nn.Module):
    """HRNet-W48 (Wang et al., TPAMI 2020) with the V2 head: all four resolutions, upsampled to stride 4, concatenated.

    Images [B, 3, H, W], H and W multiples of 32 → embeddings [B, C, H/4, W/4].
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            "hrnet_w48", pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
        )
        channels = sum(self.encoder.feature_info.channels())
        self.fuse = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(channels, embedding_dim, 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps."""
        return tuple(self.encoder.feature_info.channels())

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features at stride 4, 8, 16 and 32."""
        return list(self.encoder(images))

    def without_head(self) -> HRNet:
        """The same for `maps` alone."""
        del self.fuse, self.head
        return self

    def forward(self, images: Tensor) -> Tensor:
        finest, *coarser = self.maps(images)
        size = (finest.shape[2], finest.shape[3])
        out: Tensor = self.head(self.fuse(cat([finest, *(resized(map_, size) for map_ in coarser)], dim=1)))
        return out
