"""Text encoders by spec: what turns the sentences of labels into vectors.

A spec is ``open_clip:MODEL/TAG_OR_PATH``, ``sentence-transformers:NAME_OR_PATH`` or ``offline``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from labelmerge.encoders.offline import OfflineEncoder, offline_folder
from labelmerge.encoders.open_clip import FOLDER_CONFIG, OpenClip, is_torchscript, weights_file
from labelmerge.encoders.sentence_transformer import SentenceTransformer, folder_sha256
from labelmerge.encoders.shared import OFFLINE, OPEN_CLIP, SENTENCE_TRANSFORMERS, Vectors, local_path, read_json
from labelmerge.errors import UsageError
from labelmerge.files import sha256_file
from labelmerge.progress import Track, no_track

if TYPE_CHECKING:
    from PIL import Image

CLIP = "open_clip:ViT-B-32/laion2b_s34b_b79k"
"""The paper's space: 512-dimensional CLIP ViT-B/32. The default of a new bank."""

_FORMS = f"{OPEN_CLIP}:MODEL/TAG_OR_PATH, {SENTENCE_TRANSFORMERS}:NAME_OR_PATH, {OFFLINE}"


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
        EncoderError: the weights are not available or don't fit the model.
    """
    from labelmerge.device import choose_device

    kind, name = _parse(spec)
    if kind == OPEN_CLIP:
        return OpenClip(spec, name, choose_device(device))
    if kind == OFFLINE:
        return OfflineEncoder(choose_device(device))
    return SentenceTransformer(spec, name, choose_device(device))


def load_image_encoder(spec: str, device: str | None = None) -> ImageEncoder:
    """Load the image tower of an ``open_clip:…`` spec; on a GPU if there is one.

    Raises:
        UsageError: as `load_encoder`; or the spec is of an encoder that has no image tower.
        EncoderError: as `load_encoder`.
    """
    from labelmerge.device import choose_device

    kind, name = _parse(spec)
    if kind != OPEN_CLIP:
        raise UsageError(f"the encoder {spec!r} has no image tower", fix=f"Use {OPEN_CLIP}:MODEL/TAG_OR_PATH")
    return OpenClip(spec, name, choose_device(device))


def fingerprint(spec: str) -> Fingerprint:
    """Which encoder `spec` names, found out without loading it: by hashing local weights.

    Raises:
        UsageError: no such spec. EncoderError: the ``offline`` extra isn't installed.
    """
    kind, name = _parse(spec)
    if kind == OPEN_CLIP:
        model, _, rest = name.partition("/")
        path = local_path(rest)
        if path is None:
            return Fingerprint(f"{OPEN_CLIP}:{model}", None)
        weights = weights_file(path)
        config = path / FOLDER_CONFIG  # anyone may edit it, and the weights don't tell
        activation = None
        if config.is_file() and not is_torchscript(weights):
            model_config = read_json(config).get("model_cfg")
            quick = isinstance(model_config, dict) and model_config.get("quick_gelu")
            activation = "quick_gelu" if quick else "gelu"
        return Fingerprint(f"{OPEN_CLIP}:{model}", sha256_file(weights), activation)
    path = offline_folder() if kind == OFFLINE else local_path(name)
    return Fingerprint(SENTENCE_TRANSFORMERS, folder_sha256(path) if path else None)


def _parse(spec: str) -> tuple[str, str]:
    kind, _, name = spec.partition(":")
    if spec == OFFLINE:
        return kind, ""
    if kind == SENTENCE_TRANSFORMERS and name:
        return kind, name
    if kind == OPEN_CLIP:
        model, _, weights = name.partition("/")
        if model and weights:
            return kind, name
    raise UsageError(f"unknown encoder {spec!r}", fix=f"Known: {_FORMS}")
