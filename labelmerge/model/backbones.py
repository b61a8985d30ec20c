"""The paper's two networks: SegFormer on a Mix Transformer, and HRNet."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, cat, nn
from torch.nn import functional as F


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
