"""CLIP models by open_clip: texts and images in one space."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelmerge.encoders.shared import (
    OPEN_CLIP,
    Vectors,
    fetch_weights,
    in_batches,
    in_short,
    local_path,
    unit_rows,
)
from labelmerge.errors import EncoderError, UsageError, did_you_mean
from labelmerge.files import sha256_file
from labelmerge.progress import Track, no_track

if TYPE_CHECKING:
    import torch
    from PIL import Image

FOLDER_CONFIG = "open_clip_config.json"

_log = logging.getLogger(__name__)


class OpenClip:
    def __init__(self, spec: str, name: str, device: torch.device) -> None:
        import open_clip
        import torch

        model_name, _, weights = name.partition("/")
        path = local_path(weights)
        source, quick_gelu, preprocess = model_name, False, {}
        if path is None:
            _check_names(spec, model_name, weights)
            published = open_clip.get_pretrained_cfg(model_name, weights)
            path = fetch_weights(
                spec,
                f"{OPEN_CLIP}:{model_name}/PATH",
                lambda: _cached(published),
                lambda: open_clip.download_pretrained(published),
            )
            # A tag's weights only mean something with the activation they were trained with.
            quick_gelu = bool(published.get("quick_gelu"))
            preprocess = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        elif path.is_dir() and (path / FOLDER_CONFIG).is_file():
            source = f"local-dir:{path}"
        else:
            _check_names(spec, model_name, None)
        file = weights_file(path)
        torchscript = is_torchscript(file)
        if torchscript:
            _log.info("%s is a TorchScript archive, as OpenAI publishes CLIP: using its activation, QuickGELU", file)
        try:
            self._model = open_clip.create_model(
                source,
                pretrained=None if source.startswith("local-dir:") else str(file),
                device=device,
                force_quick_gelu=quick_gelu or torchscript,
                force_preprocess_cfg=preprocess,
                weights_only=not torchscript,
            ).eval()
            config = open_clip.get_model_config(source)
            self._tokenizer = open_clip.get_tokenizer(source)
        except Exception as error:  # whatever open_clip, torch and safetensors raise for a file that doesn't fit
            raise EncoderError(f"can't be loaded as {model_name} ({in_short(error)})", where=file) from error
        text = config["text_cfg"]
        self._device = device
        self._torch = torch
        self.spec = spec
        self.max_tokens = int(self._tokenizer.context_length)
        self.identity: Mapping[str, Any] = {
            "spec": spec,
            "model": f"{OPEN_CLIP}:{model_name}",
            "weights_sha256": sha256_file(file),
            "activation": "quick_gelu" if quick_gelu or torchscript or config.get("quick_gelu") else "gelu",
            "tokenizer": f"{text.get('hf_tokenizer_name') or 'CLIP BPE'}, {self.max_tokens} tokens",
            "versions": {package: version(package) for package in ("open_clip_torch", "torch")},
        }
        self.dim = self._embed(["label"]).shape[1]

    def parts(self) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        return self._model, self._tokenizer

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        return in_batches(self._embed, texts, batch_size, self._device, self.dim, track)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        with self._torch.inference_mode():
            vectors: torch.Tensor = self._model.encode_text(self._tokenizer(texts).to(self._device, non_blocking=True))
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        if hasattr(self._tokenizer, "encode"):  # CLIP's own; it adds a start and an end
            tokens = [len(self._tokenizer.encode(text)) + 2 for text in texts]
        else:
            tokens = [len(self._tokenizer.tokenizer(text, verbose=False)["input_ids"]) for text in texts]
        return tokens, [number > self.max_tokens for number in tokens]

    def encode_images(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> Vectors:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        prepare = image_transform_v2(PreprocessCfg(**self._model.visual.preprocess_cfg), is_train=False)
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = self._torch.stack([prepare(image) for image in images[start : start + batch_size]])
            with self._torch.inference_mode():
                parts.append(unit_rows(self._model.encode_image(batch.to(self._device))))
        return np.concatenate(parts)


def _check_names(spec: str, model: str, tag: str | None) -> None:
    import open_clip

    if model not in (models := open_clip.list_models()):
        near = did_you_mean(model, models)
        raise UsageError(f"open_clip knows no model {model!r} (in {spec!r})", fix=near if "?" in near else None)
    if tag is not None and tag not in (tags := open_clip.list_pretrained_tags_by_model(model)):
        raise UsageError(
            f"{tag!r} is neither a file nor a tag of open_clip's {model}", fix=f"Tags: {', '.join(sorted(tags))}"
        )


def weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    # The order in which open_clip looks into a folder.
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    found = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".bin", ".pth", ".pt"))
    if len(found) != 1:
        raise EncoderError(
            f"has {len(found)} files of weights" if found else "holds no weights",
            where=path,
            fix="Name the file itself",
        )
    return found[0]


def is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _cached(published: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, name = str(published.get("hf_hub", "")).rpartition("/")
    if not repository:
        return None
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if name.endswith((".bin", ".pth")):
        names.insert(0, name[:-4] + ".safetensors")
    found = (try_to_load_from_cache(repository, candidate) for candidate in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)
