"""What a MediaWiki API answers, taken in with bounds and looked through before anything believes it.

An answer may be endless, unfold to gigabytes, drip for hours, lead to another host, or be of another form.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from labelmerge.parsing import parse_json

MOST_BYTES = 16 << 20
"""Of one answer, unpacked. Fifty articles' openings are a few hundred kilobytes."""
_MOST_REDIRECTS = 3
_SLOW = 6  # times the timeout for one read: what an answer may take as a whole
_MOST_SHOWN = 200  # characters of what a server says

Fault = str


class ReplyError(Exception):
    """An answer that can't be taken in; says why."""


@dataclass(frozen=True)
class Reply:
    """An answer as a whole.

    Attributes:
        status: of HTTP.
        headers: of HTTP.
        data: what its JSON says; None where it is not JSON.
    """

    status: int
    headers: Mapping[str, str]
    data: Any

    @property
    def fault(self) -> Fault:
        """What keeps it from being one of the API about pages; ``""`` where nothing does."""
        if self.status != 200:
            return f"answered with HTTP status {self.status}"
        if self.data is None:
            return "did not answer with JSON"
        if isinstance(self.data, dict) and "error" in self.data:
            error = self.data["error"]
            said = str(error.get("info", error) if isinstance(error, dict) else error)
            return f"refused: {said[:_MOST_SHOWN]}".rstrip(".")
        if isinstance(self.data, dict) and _is_list_of_texts(self.data.get("continue", {})):
            query = self.data.get("query")
            if isinstance(query, dict) and is_sound(query) and (query.get("pages") or query.get("interwiki")):
                return ""
        return "did not answer as the MediaWiki API does"

    @property
    def is_busy(self) -> bool:
        """Whether the API would answer later: by its status, a ``Retry-After``, or the code of an error."""
        if self.status == 429 or self.status >= 500 or "Retry-After" in self.headers:
            return True
        error = self.data.get("error") if isinstance(self.data, dict) else None
        return isinstance(error, dict) and error.get("code") in ("maxlag", "ratelimited", "readonly")


def ask(client: httpx.Client, url: str, query: Mapping[str, str], timeout: float) -> Reply:
    """One question; redirects are followed on the same host.

    Args:
        client: follows no redirects itself, and asks for no packing but gzip.
        timeout: of one read, seconds; the whole answer may take a few times as long.

    Raises:
        httpx.RequestError: the host can't be reached.
        ReplyError: the answer leads elsewhere, is too long, takes too long, or is packed as was not asked for.
    """
    ends = time.monotonic() + _SLOW * timeout
    where = httpx.URL(url, params=dict(query))
    for _ in range(_MOST_REDIRECTS + 1):
        with client.stream("GET", where) as answer:
            if not answer.has_redirect_location:
                content = _content(answer, ends)
                try:
                    data = parse_json(content)
                except ValueError:
                    data = None
                return Reply(answer.status_code, answer.headers, data)
            try:
                target = where.join(answer.headers["Location"])
            except (httpx.InvalidURL, ValueError) as error:
                raise ReplyError("redirects to no address") from error
        upgraded = (where.scheme, target.scheme) == ("http", "https")
        if target.host != where.host or not (upgraded or (target.scheme, target.port) == (where.scheme, where.port)):
            raise ReplyError(f"redirects to another host ({str(target.host)[:_MOST_SHOWN]})")
        where = target
    raise ReplyError(f"redirects more than {_MOST_REDIRECTS} times")


def _content(answer: httpx.Response, ends: float) -> bytes:
    packing = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", ""):
        raise ReplyError(f"answered packed as {packing[:20]!r}, which was not asked for")
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if "gzip" in packing else None
    whole = bytearray()
    for chunk in answer.iter_raw():
        try:
            whole += chunk if unpack is None else unpack.decompress(chunk, MOST_BYTES + 1 - len(whole))
        except zlib.error as error:
            raise ReplyError("answered with damaged gzip") from error
        if len(whole) > MOST_BYTES:
            raise ReplyError(f"answered with more than {MOST_BYTES >> 20} MB")
        if time.monotonic() > ends:
            raise ReplyError("did not come to the end of an answer in time")
    if unpack is not None and not unpack.eof:
        raise ReplyError("answered with damaged gzip")
    return bytes(whole)


def is_sound(query: Any) -> bool:
    """Whether the part ``query`` of an answer, or of a kept one, is of the form that the API gives it."""
    if not isinstance(query, dict):
        return False
    for kind, keys in (("normalized", ("from", "to")), ("redirects", ("from", "to")), ("interwiki", ("title",))):
        steps = query.get(kind, [])
        if not isinstance(steps, list) or not all(_has_texts(step, keys) for step in steps):
            return False
    pages = query.get("pages", {})
    return isinstance(pages, dict) and all(_is_page(number, page) for number, page in pages.items())


def _is_page(number: str, page: Any) -> bool:
    if not number.removeprefix("-").isdecimal() or not _has_texts(page, ("title",)):
        return False
    if not isinstance(page.get("extract", ""), str) or not isinstance(page.get("pageprops", {}), dict):
        return False
    if type(page.get("ns", 0)) is not int:
        return False
    links = page.get("langlinks", [])
    if not isinstance(links, list) or not all(_has_texts(link, ("lang", "*")) for link in links):
        return False
    if "missing" in page or "invalid" in page:
        return True
    return type(page.get("lastrevid")) is int and isinstance(page.get("fullurl"), str) and len(page["fullurl"]) < 4000


def _has_texts(record: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(key), str) for key in keys)


def _is_list_of_texts(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(value, str | int) for value in table.values())
