"""Pretrained encoder weights, from the hub or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from labelmerge.errors import ConfigError
from labelmerge.hub import ask_hub

# What wraps a state dict, or stands before its names, in the checkpoints that people publish.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("", "encoder.", "backbone.", "module.", "model.", "module.encoder.", "module.backbone.")


@dataclass(frozen=True)
class Hub:
    """Where on the Hugging Face hub an encoder's ImageNet weights are."""

    repo: str
    file: str = "model.safetensors"


def load_encoder_weights(encoder: nn.Module, name: str, pretrained: str, hub: Hub) -> None:
    """Load `pretrained` (``"imagenet"`` or a path) into `encoder`, every weight of it.

    What else the file holds (a classifier) does not matter.

    Args:
        name: the model, for messages.

    Raises:
        ConfigError: the weights can't be fetched or read, or are of another encoder.
    """
    path = _fetch(name, hub) if pretrained == "imagenet" else Path(pretrained)
    found = _read(path)
    own = encoder.state_dict()
    # Older files lack BatchNorm's counters, which nothing here reads.
    needed = [key for key in own if not key.endswith(".num_batches_tracked")]
    prefix = max(_PREFIXES, key=lambda prefix: sum(prefix + key in found for key in needed))
    for key in needed:
        given = found.get(prefix + key)
        if given is None or given.shape != own[key].shape:
            there = "is not there" if given is None else f"has shape {tuple(given.shape)}, not {tuple(own[key].shape)}"
            raise ConfigError(
                f"these are not the weights of the encoder of {name}: {key!r} {there}",
                where=path,
                fix=f"They are published on the hub as {hub.repo}",
            )
    with torch.no_grad():
        for key in needed:
            own[key].copy_(found[prefix + key])


def _fetch(name: str, hub: Hub) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(cached := try_to_load_from_cache(hub.repo, hub.file), str):
        return Path(cached)
    try:
        ask_hub()
        return Path(hf_hub_download(hub.repo, hub.file))
    except Exception as error:  # the client's, its transport's and the operating system's errors have no common base
        raise ConfigError(
            f"the ImageNet weights of {name} can't be fetched from the hub ({hub.repo})",
            fix=f"Give a local copy of its {hub.file} as --pretrained, or start from random weights: --pretrained ''",
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(
            "no such file of pretrained weights", where=path, fix="`pretrained` is `imagenet` or the path of a file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler stumbles over
        raise ConfigError("can't be read as weights (.safetensors or .pth)", where=path) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ConfigError("is not a state dict (weights by name)", where=path)
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
