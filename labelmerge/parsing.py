"""JSON and TOML that anybody may have written: what comes out is finite, shallow and can be written again.

Python's own parsers give infinity for 1e999, numbers of any length, halves of characters, and a RecursionError for a
thousand brackets. Whatever reads them later then fails, far from the file at fault.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 100
"""Tables and lists within each other: deeper than any file that people or programs write for us."""
_LARGEST = 2**64


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not JSON, too deep, or holds what is neither text nor a finite number of 64 bits.
    """
    try:
        value = json.loads(_text(text))
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """The table of a TOML text; bytes are UTF-8. Raises ValueError as `parse_json` does."""
    try:
        value = tomllib.loads(_text(text))
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def _text(text: str | bytes) -> str:
    try:
        return text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8, from byte {error.start} on") from error


def _too_deep() -> ValueError:
    return ValueError(f"more than {MAX_DEPTH} lists or tables within each other")


def _check(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        inside: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                _check_texts(each)
                inside += each.values()
            elif isinstance(each, list):
                inside += each
            elif isinstance(each, str):
                _check_texts((each,))
            elif isinstance(each, float) and not math.isfinite(each):
                raise ValueError(f"{each} is not a number")
            elif isinstance(each, int) and abs(each) > _LARGEST:
                raise ValueError("a whole number of more than 64 bits")
        if not inside:
            return
        level = inside
    raise _too_deep()


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{text!r} holds half a character") from None
