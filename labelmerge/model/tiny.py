"""A network small enough to learn on a CPU in minutes."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F


class TinyNet(nn.Module):
    """About 0.3 million parameters: detail at stride 4, context at stride 8, and the mean of the whole image.

    Images [B, 3, H, W], H and W multiples of 8 → embeddings [B, C, H/4, W/4].
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.stem = _conv(3, 24, stride=2)
        self.detail = nn.Sequential(_conv(24, 48, stride=2), _Residual(48))
        self.coarse = nn.Sequential(_conv(48, 96, stride=2), _Residual(96, dilation=2), _Residual(96, dilation=4))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(96, 96, 1))
        self.fuse = nn.Sequential(nn.Conv2d(48 + 96, 96, 1, bias=False), nn.GroupNorm(8, 96), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(96, embedding_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        detail, coarse = self.maps(images)
        context = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        out: Tensor = self.head(self.fuse(cat([detail, context], dim=1)))
        return out

    channels = (48, 96)
    """Of the maps."""

    def maps(self, images: Tensor) -> list[Tensor]:
        """Features at stride 4 and 8."""
        detail = self.detail(self.stem(images))
        coarse = self.coarse(detail)
        return [detail, coarse + self.whole(coarse)]

    def without_head(self) -> TinyNet:
        """The same for `maps` alone."""
        del self.fuse, self.head
        return self


def _conv(channels_in: int, channels_out: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # GroupNorm, because batches on a CPU are small.
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=dilation, dilation=dilation, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x)
        return out
