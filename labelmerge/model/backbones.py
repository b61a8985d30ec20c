"""The paper's two networks: SegFormer on a Mix Transformer, and HRNet."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders.mix_transformer import Attention, Block
from torch import Tensor, cat, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class FusedAttention(Attention):  # type: ignore[misc]  # smp has no types
    """The same attention, but softmax and products in one kernel: no matrix of all pairs, and no casts of it."""

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, count, channels = x.shape
        heads, each = self.num_heads, channels // self.num_heads
        q = self.q(x).view(batch, count, heads, each).transpose(1, 2)
        if self.sr_ratio > 1:
            x = self.sr(x.transpose(1, 2).reshape(batch, channels, height, width)).flatten(2).transpose(1, 2)
            x = self.norm(x)
        k, v = self.kv(x).view(batch, -1, 2, heads, each).permute(2, 0, 3, 1, 4)
        dropped = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, scale=self.scale)
        out: Tensor = self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, count, channels)))
        return out


class RecomputedBlock(Block):  # type: ignore[misc]  # smp has no types
    """The same block, but nothing inside it is kept for the backward pass: it is computed again."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)  # type: ignore[no-any-return]
        out: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return out


class SegFormer(nn.Module):
    """SegFormer (Xie et al., NeurIPS 2021), its decoder at stride 4 without the last upsampling.

    Images [B, 3, H, W], H and W multiples of 32 → embeddings [B, C, H/4, W/4].

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
        for part in self.encoder.modules():
            if type(part) is Attention:
                part.__class__ = FusedAttention  # the same parameters by the same names

    def recompute(self) -> None:
        """See `SegmentationModel.recompute`."""
        for part in self.encoder.modules():
            if type(part) is Block:
                part.__class__ = RecomputedBlock

    def regions(self) -> list[nn.Module]:
        """What recurs, to be compiled once for each of the four stages instead of for each block."""
        return [
            part for block in self.encoder.modules() if isinstance(block, Block) for part in (block.attn, block.mlp)
        ]

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.decoder(self.encoder(images)))
        return out

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps."""
        return tuple(self.encoder.out_channels[-4:])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features at stride 4, 8, 16 and 32."""
        return list(self.encoder(images)[-4:])

    def without_head(self) -> SegFormer:
        """The same for `maps` alone."""
        del self.decoder, self.head
        return self


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
        size = finest.shape[2:]
        resized = [F.interpolate(map_, size=size, mode="bilinear", align_corners=False) for map_ in coarser]
        out: Tensor = self.head(self.fuse(cat([finest, *resized], dim=1)))
        return out
