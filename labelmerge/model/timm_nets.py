"""Encoders from timm, each with a decoder that fits: `timm:NAME`, and `lite`."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from labelmerge.errors import ConfigError
from labelmerge.model.decoders import PlainDecoder, PyramidDecoder, resized

STRIDE = 4
_PLAIN_MAPS = 4  # of a plain encoder: its last block and three before it, evenly spaced
_WIDTH = 256
# What lets a model take images of any size, where that must be asked for.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class TimmEncoder(nn.Module):
    """A timm model without its classifier: images → feature maps.

    Images [B, 3, H, W], H and W multiples of `divisor` → maps [B, channels[i], H/strides[i], W/strides[i]], finest
    first: a pyramid from stride 4 on, or blocks of a plain encoder, all of one stride.

    Attributes:
        published: the part whose names are those of timm's weight files; `own_names` makes others' fit.
        plain: all maps have one stride.
        settings: timm's own of this model: ``mean`` and ``std`` of its images, ``hf_hub_id`` where its weights are.

    Raises:
        ConfigError: timm has no such model, or it has no maps, or can't take images of any size.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        body = _create(name, None)
        strides = body.feature_info.reduction()
        count = len(body.feature_info.info)
        self.plain = len(set(strides)) == 1
        if self.plain:
            chosen = sorted({count - 1 - (count * part) // _PLAIN_MAPS for part in range(_PLAIN_MAPS)})
        else:
            every = [entry["reduction"] for entry in body.feature_info.info]
            # The last map of each stride: what the network knows best there.
            chosen = sorted({stride: place for place, stride in enumerate(every) if stride >= STRIDE}.values())
        self.body = _create(name, chosen)
        self.strides = tuple(self.body.feature_info.reduction())
        self.channels = tuple(self.body.feature_info.channels())
        self.divisor = math.lcm(STRIDE, *self.strides)
        self.settings: Mapping[str, Any] = self.published.pretrained_cfg
        self._try(name)

    @property
    def published(self) -> Any:
        return self.body.model

    def forward(self, images: Tensor) -> list[Tensor]:
        out: list[Tensor] = self.body(images)
        return out

    def own_names(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published file's weights by timm's names, as timm itself translates what its authors wrote."""
        translate = getattr(sys.modules[type(self.published).__module__], "checkpoint_filter_fn", None)
        if translate is None:
            return found
        try:
            return dict(translate(dict(found), self.published))
        except Exception:  # of another model: the comparison of names says so
            return found

    @torch.no_grad()
    def _try(self, name: str) -> None:
        """Refuse what can't take images of any size, before it is trained."""
        height, width = 2 * self.divisor, 3 * self.divisor
        training = self.training
        try:
            maps = self.eval()(torch.zeros(1, 3, height, width))
        except Exception as error:  # each model has an assertion of its own
            raise ConfigError(
                f"timm's {name} doesn't take images of any size ({_short(error)})",
                fix="Use another timm: model: convolutional networks, Swin and most ViTs do",
            ) from error
        finally:
            self.train(training)
        expected = [(height // stride, width // stride) for stride in self.strides]
        if [tuple(map_.shape[2:]) for map_ in maps] != expected:
            raise ConfigError(f"the feature maps of timm's {name} are not where images are", fix="Use another model")


class TimmNet(nn.Module):
    """A timm encoder and a decoder: a pyramid, or a plain one for plain encoders.

    Images [B, 3, H, W], H and W multiples of ``encoder.divisor`` → embeddings [B, C, H/4, W/4].
    """

    def __init__(self, name: str, embedding_dim: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.encoder = TimmEncoder(name)
        decoder = PlainDecoder if self.encoder.plain else PyramidDecoder
        self.decoder = decoder(self.encoder.channels, embedding_dim, width)

    def recompute(self) -> None:
        """See `SegmentationModel.recompute`."""
        self.encoder.published.set_grad_checkpointing(True)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps."""
        return self.encoder.channels

    def maps(self, images: Tensor) -> list[Tensor]:
        """The encoder's features from fine to coarse; a plain encoder's at strides 4, 8, 16 and 32, as a pyramid's."""
        maps: list[Tensor] = self.encoder(images)
        if not self.encoder.plain:
            return maps
        height, width = images.shape[2:]
        sizes = [(-(-height // (STRIDE << place)), -(-width // (STRIDE << place))) for place in range(len(maps))]
        return [resized(map_, size) for map_, size in zip(maps, sizes, strict=True)]

    def without_head(self) -> TimmNet:
        """The same for `maps` alone."""
        del self.decoder
        return self

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        out: Tensor = self.decoder(self.encoder(images), size)
        return out


def lite_names(found: dict[str, Tensor], published: nn.Module) -> dict[str, Tensor]:
    """EfficientNet-Lite0's weights by timm's names, from the names of the package that they come in.

    Its tensors, without the counters of batch norm, are those of timm's ``tf_efficientnet_lite0`` in the same order;
    the last few, which no feature map needs, are left over.
    """
    if "_conv_stem.weight" not in found:
        return found
    theirs = [tensor for key, tensor in found.items() if not key.endswith(".num_batches_tracked")]
    ours = [key for key in published.state_dict() if not key.endswith(".num_batches_tracked")]
    return dict(zip(ours, theirs, strict=False))


def _create(name: str, chosen: list[int] | None) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        fix = f"Did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists them in Python"
        raise ConfigError(f"timm {timm.__version__} has no model {name!r}", fix=fix)
    places = {} if chosen is None else {"out_indices": chosen}
    for more in _ANY_SIZE:
        try:
            # The getter's weights have the names of the published ones, and what no map needs is left out.
            body = timm.create_model(name, pretrained=False, features_only=True, feature_cls="getter", **places, **more)
        except TypeError:  # it doesn't know that argument
            continue
        except Exception as error:  # whatever stops a model from giving its maps
            raise ConfigError(f"timm's {name} gives no feature maps ({_short(error)})") from error
        return body
    raise ConfigError(f"timm's {name} gives no feature maps")


def _short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
