"""Sentence encoders by sentence-transformers."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmerge.encoders.shared import (
    INSTALL_OFFLINE,
    SENTENCE_TRANSFORMERS,
    Vectors,
    fetch_weights,
    in_batches,
    in_short,
    local_path,
    read_json,
)
from labelmerge.errors import EncoderError
from labelmerge.files import sha256_file
from labelmerge.progress import Track, no_track

if TYPE_CHECKING:
    import torch

_MODEL_FILES = {".safetensors", ".bin", ".json", ".txt", ".model"}
_NOT_THE_MODEL = {"onnx", "openvino", "data_config.json"}


class SentenceTransformer:
    def __init__(self, spec: str, name: str, device: torch.device) -> None:
        folder = local_path(name)
        if importlib.util.find_spec("sentence_transformers") is None:
            raise EncoderError(f"the encoder {spec!r} needs sentence-transformers", fix=INSTALL_OFFLINE)
        import sentence_transformers
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # it shows the reading of a file of 0.1 s
        if folder is None:
            repository = name if "/" in name else f"sentence-transformers/{name}"
            folder = fetch_weights(
                spec,
                f"{SENTENCE_TRANSFORMERS}:PATH",
                lambda: _snapshot(repository),
                lambda: sentence_transformers.SentenceTransformer(repository, device="cpu") and _snapshot(repository),
            )
        try:
            self._model = sentence_transformers.SentenceTransformer(
                str(folder), device=str(device), local_files_only=True
            ).eval()
        except Exception as error:  # whatever transformers, torch and safetensors raise for a folder that doesn't fit
            raise EncoderError(f"can't be loaded by sentence-transformers ({in_short(error)})", where=folder) from error
        self.spec = spec
        self._device = device
        self.max_tokens = int(self._model.max_seq_length or self._model.tokenizer.model_max_length)
        versions = {package: version(package) for package in ("sentence-transformers", "transformers", "torch")}
        self.identity: Mapping[str, Any] = identity_of(spec, folder, self.max_tokens, versions)
        self.dim = self._embed(["label"]).shape[1]

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        return in_batches(self._embed, texts, batch_size, self._device, self.dim, track)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        vectors: torch.Tensor = self._model.encode(
            texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False
        )
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        tokens = [len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"]) for text in texts]
        return tokens, [number > self.max_tokens for number in tokens]


def identity_of(spec: str, folder: Path, max_tokens: int, versions: Mapping[str, str]) -> dict[str, Any]:
    """`labelmerge.encoders.encoders.TextEncoder.identity` of a model in a folder of sentence-transformers'."""
    tokenizer = read_json(folder / "tokenizer_config.json").get("tokenizer_class", "its own")
    return {
        "spec": spec,
        "model": SENTENCE_TRANSFORMERS,
        "weights_sha256": folder_sha256(folder),
        "activation": str(read_json(folder / "config.json").get("hidden_act", "its own")),
        "tokenizer": f"{tokenizer}, {max_tokens} tokens",
        "versions": dict(versions),
    }


def folder_sha256(folder: Path) -> str:
    """One hash of the files that make a model: weights, configuration, vocabulary."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.suffix in _MODEL_FILES and file.is_file() and not _NOT_THE_MODEL & set(inside.parts):
            digest.update(f"{inside.as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _snapshot(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None
