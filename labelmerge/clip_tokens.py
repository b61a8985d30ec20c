"""How many tokens CLIP makes of a text, counted without torch: byte pairs as open_clip's own vocabulary has them.

The tokenizer is that of A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(ICML 2021): byte pair encoding (R. Sennrich, B. Haddow, A. Birch, "Neural Machine Translation of Rare Words with
Subword Units", ACL 2016) of words in lower case.
"""

from __future__ import annotations

import gzip
import html
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # of the file's lines after its first, how many make tokens
_END = "</w>"
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_SPECIAL = ("<start_of_text>", "<end_of_text>")


def count_clip_tokens(text: str) -> int:
    """How many tokens CLIP needs for `text`, its start and end tokens included."""
    import ftfy
    import regex

    clean = html.unescape(html.unescape(ftfy.fix_text(text)))
    words = regex.findall(_WORDS, " ".join(clean.split()).lower(), regex.IGNORECASE)
    return 2 + sum(1 if word in _SPECIAL else _pieces(word) for word in words)


@cache
def _pieces(word: str) -> int:
    """How many tokens a word is: its bytes, of which the pairs that the vocabulary ranks first are joined first."""
    ranks, letters = _ranks(), _letters()
    parts = [letters[byte] for byte in word.encode()]
    parts[-1] += _END
    while len(parts) > 1:
        best = min(zip(parts, parts[1:], strict=False), key=lambda pair: ranks.get(pair, _MERGES))
        if best not in ranks:
            break
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return len(parts)


@cache
def _ranks() -> dict[tuple[str, str], int]:
    """The pairs that are joined, and their order. Found beside open_clip's code, which need not be loaded for it."""
    spec = find_spec("open_clip")
    assert spec is not None and spec.origin is not None  # a package that labelmerge needs
    text = gzip.decompress((Path(spec.origin).parent / _VOCABULARY).read_bytes()).decode()
    pairs = (line.split() for line in text.split("\n")[1 : _MERGES + 1])
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


@cache
def _letters() -> list[str]:
    """The character that stands for each byte in the vocabulary: itself where it can be seen, else one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in seen else chr(next(hidden)) for byte in range(256)]
