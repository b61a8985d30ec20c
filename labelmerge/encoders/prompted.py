"""CLIP's text tower with learned vectors before the text (K. Zhou et al., "Learning to Prompt for Vision-Language
Models", IJCV 2022): differentiable in these vectors alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmerge.encoders.encoders import load_encoder
from labelmerge.encoders.open_clip import FOLDER_CONFIG, OpenClip
from labelmerge.encoders.shared import OPEN_CLIP, read_json
from labelmerge.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, device


def text_width(spec: str) -> int:
    """The length of a token's vector in the text tower that an ``open_clip:…`` spec names, which need not be there.

    Raises:
        UsageError: it is no such spec, or open_clip has no such model.
    """
    import open_clip

    kind, _, name = spec.partition(":")
    model, _, weights = name.partition("/")
    if kind != OPEN_CLIP or not model or not weights:
        raise UsageError(f"{spec!r} is no text tower of CLIP", fix=f"Use {OPEN_CLIP}:MODEL/TAG_OR_PATH")
    folder = Path(weights).expanduser() / FOLDER_CONFIG
    config: Any = read_json(folder).get("model_cfg") if folder.is_file() else open_clip.get_model_config(model)
    width = config.get("text_cfg", {}).get("width") if isinstance(config, dict) else None
    if not isinstance(width, int):
        raise UsageError(f"open_clip knows no text tower of CLIP's form under {model!r}")
    return width


class PromptedTower:
    """A frozen text tower: ``[start] [v₁ … v_L] [text] [end]`` → vectors.

    A text that is too long loses its last tokens. Copies of whatever holds the tower share it.

    Attributes:
        dim: C, the length of a text's vector.
    """

    def __init__(self, spec: str, device: device | str) -> None:
        """Raises UsageError, EncoderError: there is no such encoder, or it is not CLIP's causal transformer."""
        encoder = load_encoder(spec, str(device))
        clip, tokenizer = encoder.parts() if isinstance(encoder, OpenClip) else (None, None)
        parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask", "text_projection")
        if (
            clip is None
            or not all(hasattr(clip, part) for part in parts)
            or clip.attn_mask is None
            or getattr(clip, "text_pool_type", None) != "argmax"  # the end is the token of the highest number
        ):
            raise EncoderError(f"{spec!r} is not CLIP's own text transformer, which prompts are learned for")
        self._clip = clip.requires_grad_(False)
        self._tokenizer: Any = tokenizer
        self._length = int(encoder.max_tokens)
        self._count = encoder.count_tokens
        self.dim = encoder.dim

    def cut(self, texts: Sequence[str], prompt: int) -> list[str]:
        """Those of the texts that are too long beside a prompt of so many vectors."""
        return [
            text for text, tokens in zip(texts, self._count(texts)[0], strict=True) if tokens + prompt > self._length
        ]

    def __deepcopy__(self, memo: dict[int, object]) -> PromptedTower:
        return self

    def encode(self, texts: Sequence[str], prompt: Tensor) -> Tensor:
        """Unit vectors ``[n, C]``.

        Args:
            texts: one or more.
            prompt: ``[L, width]``, what stands before each.
        """
        import torch

        room = self._length - len(prompt)
        if room < 3:
            raise UsageError(f"{len(prompt)} learned vectors leave no room for a text in {self._length} tokens")
        tokens = self._tokenizer(list(texts)).to(prompt.device)  # [n, length], zeros behind the end
        end = int(tokens.max())
        ends = (tokens == end).int().argmax(dim=1).clamp(max=room - 1)
        tokens = tokens[:, : int(ends.max()) + 1]  # nothing behind the last end: attention is causal
        tokens = tokens.scatter(1, ends[:, None], end)
        clip = self._clip
        x = clip.token_embedding(tokens)
        x = torch.cat([x[:, :1], prompt.to(x.dtype).expand(len(x), -1, -1), x[:, 1:]], dim=1)
        x = x + clip.positional_embedding[: x.shape[1]].to(x.dtype)
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[: x.shape[1], : x.shape[1]]))
        x = x[torch.arange(len(x), device=x.device), ends + len(prompt)]
        projection = clip.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
        return torch.nn.functional.normalize(x.float(), dim=-1)
