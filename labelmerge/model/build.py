"""images -> pixel embeddings: the networks by name, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.model.tiny import TinyNet
from labelmerge.model.weights import Hub, load_encoder_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SegmentationModel(nn.Module):
    """Any network as the pipeline sees it. Make one with `build_model`.

    Attributes:
        name: the name it was built by.
        embedding_dim: C.
        stride: pixels per embedding, in both directions.
        mean, std: RGB; what `normalise` uses.
        memory_format: how `normalise` lays images out in memory.
        net: the network itself; takes sizes that are multiples of `divisor` only.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    stride = 4
    memory_format = torch.contiguous_format
    _mean: Tensor
    _std: Tensor

    def __init__(self, name: str, embedding_dim: int, net: nn.Module, divisor: int) -> None:
        super().__init__()
        self.name, self.embedding_dim, self.net, self.divisor = name, embedding_dim, net, divisor
        for own, values in (("_mean", self.mean), ("_std", self.std)):
            self.register_buffer(own, torch.tensor(values).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the network wants them: (image - mean) / std.

        Args:
            images: ``[…, 3, H, W]``, RGB, on the model's device: uint8, or float within 0..1.
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255
        out = (images - self._mean) / self._std
        return out.contiguous(memory_format=self.memory_format) if out.ndim == 4 else out

    def forward(self, images: Tensor) -> Tensor:
        """Pixel embeddings of images of any size.

        Args:
            images: float [B, 3, H, W], as `normalise` gives them.

        Returns:
            [B, C, ⌈H / stride⌉, ⌈W / stride⌉], not normalised; upsample them to H×W (bilinear,
            ``align_corners=False``). Where H or W is no multiple of the stride, the last embedding reaches over the
            edge by less than a stride.
        """
        height, width = images.shape[2:]
        # The networks halve and double their maps and need sizes that come out even: zeros (the mean colour) are
        # added at the right and at the bottom, and their embeddings cut off.
        padded = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        out: Tensor = self.net(padded)
        return out[:, :, : -(-height // self.stride), : -(-width // self.stride)]

    def is_encoders(self, name: str) -> bool:
        """Whether a tensor of the state belongs to the encoder; in `tiny`, to all but the head."""
        if hasattr(self.net, "encoder"):
            return name.startswith("net.encoder.")
        return name.startswith("net.") and not name.startswith("net.head.")

    def parameter_groups(self, lr: float, weight_decay: float, *, head_factor: float = 1.0) -> list[dict[str, Any]]:
        """Parameters for an optimiser: no weight decay on norms and biases, and a rate of its own for what is new.

        Args:
            lr: the learning rate of the encoder.
            weight_decay: of the weights; norms and biases (one dimension) have none.
            head_factor: the learning rate of all but the encoder is `lr` times this. `tiny` has no encoder.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            rate = lr if name.startswith("net.encoder.") else lr * head_factor
            groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]


class Pyramid(SegmentationModel):
    """A network without its head, for methods that have one of their own. Make it with `Pyramid.of`.

    Attributes:
        channels: of each map.
    """

    def __init__(self, name: str, embedding_dim: int, net: nn.Module, divisor: int) -> None:
        super().__init__(name, embedding_dim, net, divisor)
        self.channels: tuple[int, ...] = tuple(cast(Any, net).channels)

    @classmethod
    def of(cls, model: SegmentationModel) -> Pyramid:
        """The encoder of a model, whose head is dropped."""
        return cls(model.name, model.embedding_dim, cast(Any, model.net).without_head(), model.divisor)

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]  # several maps in place of one
        """Features of images of any size, from fine to coarse.

        Args:
            images: float [B, 3, H, W], as `normalise` gives them.

        Returns:
            ``[B, C_i, H' / s_i, W' / s_i]``, s_0 = `stride`; H' and W' are H and W, rounded up to what the network
            needs.
        """
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        maps: list[Tensor] = cast(Any, self.net).maps(padded)
        return maps


def _segformer(size: int, embedding_dim: int) -> nn.Module:
    from labelmerge.model.backbones import SegFormer

    return SegFormer(size, embedding_dim)


def _hrnet(embedding_dim: int) -> nn.Module:
    from labelmerge.model.backbones import HRNet

    return HRNet(embedding_dim)


# name -> (how to make it, what its input sizes must be multiples of, where its encoder's ImageNet weights are)
_MODELS: dict[str, tuple[Callable[[int], nn.Module], int, Hub | None]] = {
    "tiny": (TinyNet, 8, None),
    **{
        f"segformer-b{size}": (partial(_segformer, size), 32, Hub(f"smp-hub/mit_b{size}.imagenet")) for size in range(6)
    },
    "hrnet-w48": (_hrnet, 32, Hub("timm/hrnet_w48.ms_in1k")),
}
MODELS = tuple(_MODELS)


def build_model(name: str, embedding_dim: int, *, pretrained: str | None = None) -> SegmentationModel:
    """Make a model, randomly initialised or with a pretrained encoder.

    Args:
        name: ``tiny``, ``segformer-b0`` … ``segformer-b5`` or ``hrnet-w48``.
        embedding_dim: the dimension C of the label vectors.
        pretrained: None, ``"imagenet"`` (fetched from the hub), or the path of a ``.safetensors`` or ``.pth`` file that
            holds the encoder's weights.

    Raises:
        ConfigError: an unknown name; weights that can't be fetched or read, or that are of another encoder.
    """
    if name not in _MODELS:
        raise ConfigError(f"unknown model {name!r}", fix=did_you_mean(name, MODELS))
    make, divisor, hub = _MODELS[name]
    if pretrained is not None and hub is None:
        raise ConfigError(
            f"there are no pretrained weights for the model {name!r}",
            fix="Leave `pretrained` out, or use another model",
        )
    net = make(embedding_dim)
    if pretrained is not None and hub is not None:
        load_encoder_weights(net.get_submodule("encoder"), name, pretrained, hub)
    return SegmentationModel(name, embedding_dim, net, divisor)
