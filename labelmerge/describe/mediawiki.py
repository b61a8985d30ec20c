"""Asking a MediaWiki API about many articles: politely, in batches, and never twice."""

from __future__ import annotations

import email.utils
import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import wikipediaapi

from labelmerge.describe.replies import ReplyError, ask, is_sound
from labelmerge.errors import LabelmergeError
from labelmerge.files import write_json
from labelmerge.parsing import parse_json
from labelmerge.progress import Track, no_track

_log = logging.getLogger(__name__)

_FORMAT = "labelmerge-wikipedia/1"
_MOST_PARTS = 60  # of one answer; the API needs one or two, and at most one for each title
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MAX_WAIT = 120.0
"""Seconds: a server that asks for a longer pause is not waited for."""

# The API gives openings of 20 pages at once, and anything else of 50 (https://www.mediawiki.org/wiki/API:Etiquette
# asks for batches, for requests one after another, and for `maxlag`).
_ABOUT = {"action": "query", "format": "json", "redirects": "1", "inprop": "url", "maxlag": "5"}
_OPENINGS = {"prop": "info|pageprops|extracts", "ppprop": "disambiguation", "exintro": "1", "explaintext": "1"}
_OPENINGS_AT_ONCE = 20
_LINKS = {"prop": "info|pageprops|langlinks", "ppprop": "disambiguation", "lllimit": "max", "llprop": "url"}
_LINKS_AT_ONCE = 50


class MediaWiki:
    """The articles of one wiki, read through the wikipedia-api package.

    The package asks about one page at a time, minds no ``Retry-After`` of a 503 nor one that is a date, and goes around
    proxies. So it gets its answers from here: `fetch` asks about many titles in one request and keeps what comes on
    disk; `page` gives the package's view of one of them.

    Args:
        api_url: where to ask.
        cache: the JSON file where answers are kept, at once after each request.
        user_agent: names the program and whom to write to.
        links_to: a language: ask which article there each one links to, instead of asking for openings.
        again: ask for everything again, whatever is kept.
        retries: how often a request is repeated when the server is busy or faulty (429, 5xx) or the connection breaks.
        retry_wait: seconds before the first repetition, doubled each time; ``Retry-After`` overrules it.
        timeout: seconds without an answer after which a request has failed.
    """

    def __init__(
        self,
        api_url: str,
        cache: Path,
        *,
        user_agent: str,
        links_to: str | None = None,
        again: bool = False,
        retries: int = 4,
        retry_wait: float = 1.0,
        timeout: float = 10.0,
    ) -> None:
        self._url, self._cache = api_url, cache
        self._retries, self._wait, self._timeout = retries, retry_wait, timeout
        self._query = _ABOUT | (_LINKS | {"lllang": links_to} if links_to else _OPENINGS | {"exlimit": "max"})
        self._at_once = _LINKS_AT_ONCE if links_to else _OPENINGS_AT_ONCE
        self._again = again
        self._kept = _read_cache(cache)
        self._answered = False
        self._client = httpx.Client(
            timeout=timeout,
            headers={"User-Agent": user_agent, "Accept-Encoding": "gzip"},
            limits=httpx.Limits(max_connections=1),
        )
        self._pages = wikipediaapi.Wikipedia(
            user_agent=user_agent, language="en", max_retries=0, transport=_FromMemory(self._kept)
        )

    def fetch(self, titles: Sequence[str], track: Track = no_track) -> None:
        """Ask about those of `titles` that nothing is kept of; about all of them, if told to ask again.

        Raises:
            LabelmergeError: the API can't be reached or does not answer as it should; what came before is kept.
            OutputError: the cache can't be written.
        """
        new = [title for title in titles if self._again or title not in self._kept]
        batches = [new[start : start + self._at_once] for start in range(0, len(new), self._at_once)]
        for batch in track(batches, "fetching articles", len(batches)):
            answer = self._ask({**self._query, "titles": "|".join(batch)})
            now = datetime.now(UTC).date().isoformat()
            for title in batch:
                self._kept[title] = {"fetched": now, "query": _about(title, answer)}
            write_json(self._cache, {"format": _FORMAT, "articles": self._kept})

    def page(self, title: str) -> wikipediaapi.WikipediaPage:
        """The page of a title that was fetched."""
        return self._pages.page(title)

    def fetched(self, title: str) -> str:
        """The day on which this title was asked about, ``YYYY-MM-DD``."""
        return str(self._kept[title]["fetched"])

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _ask(self, query: Mapping[str, str]) -> dict[str, Any]:
        """All of the API's answer to a query, which may come in parts. Raises LabelmergeError."""
        whole: dict[str, Any] = {}
        more: dict[str, str] = {}
        asked: list[dict[str, str]] = []
        while True:
            part = self._ask_once({**query, **more})
            whole = _join(whole, part["query"])
            if "continue" not in part:
                return whole
            asked.append(more)
            more = {key: str(value) for key, value in part["continue"].items() if key not in query}
            if more in asked or len(asked) >= _MOST_PARTS:
                raise self._given_up("never comes to the end of an answer")

    def _ask_once(self, query: Mapping[str, str]) -> dict[str, Any]:
        for attempt in range(self._retries + 1):
            pause = self._wait * 2**attempt
            try:
                answer = ask(self._client, self._url, query, self._timeout)
            except ReplyError as error:
                fault = str(error)
                break
            except httpx.HTTPError as error:
                fault = f"can't be reached ({str(error) or type(error).__name__})"
                if not self._answered:  # offline, most likely: say so at once
                    break
            else:
                fault = answer.fault
                if not fault:
                    self._answered = True
                    return dict(answer.data)
                asked = _retry_after(answer.headers.get("Retry-After"))
                garbled = answer.status == 200 and answer.data is None
                if not answer.is_busy and not (garbled and self._answered):  # a hotel's login page stays what it is
                    break
                pause = pause if asked is None else asked
                if pause > _MAX_WAIT:
                    fault += f" and asks to come back in {pause:.0f} s"
                    break
            if attempt < self._retries:
                _log.debug("%s %s; asking again in %.1f s", self._url, fault, pause)
                time.sleep(pause)
        raise self._given_up(fault)

    def _given_up(self, fault: str) -> LabelmergeError:
        came = "What came so far is kept" if self._kept else "Nothing was written"
        return LabelmergeError(
            fault,
            where=self._url,
            fix=f"{came}. Run the same command again later, or use `--from curated`, which needs no network",
        )


class _FromMemory(httpx.BaseTransport):
    """Answers every question about a title with all that is kept of it."""

    def __init__(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        self._kept = kept

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"query": self._kept[request.url.params["titles"]]["query"]})


def _read_cache(path: Path) -> dict[str, dict[str, Any]]:
    try:
        cache = parse_json(path.read_bytes())
        if cache["format"] == _FORMAT:
            articles = {
                str(title): {"fetched": str(entry["fetched"]), "query": dict(entry["query"])}
                for title, entry in cache["articles"].items()
            }
            if not all(
                is_sound(entry["query"]) and _DAY.fullmatch(str(entry["fetched"])) for entry in articles.values()
            ):
                raise ValueError("entries are malformed")
            return articles
        _log.warning("%s is of another version: everything is fetched again", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s can't be read: everything is fetched again", path)
    return {}


def _join(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Two parts of one answer: lists go end to end, and tables are joined key by key."""
    joined = dict(whole)
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(joined.get(key), dict):
            joined[key] = _join(joined[key], value)
        elif isinstance(value, list) and isinstance(joined.get(key), list):
            joined[key] = joined[key] + [entry for entry in value if entry not in joined[key]]
        else:
            joined[key] = value
    return joined


def _about(title: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Of the answer about many titles, what the API would have said about this one alone."""
    query: dict[str, Any] = {}
    for kind in ("normalized", "redirects"):  # "some_title" -> "Some title" -> the title of the article
        steps = {step["from"]: step for step in answer.get(kind, ())}
        passed = []
        while title in steps:
            step = steps.pop(title)
            passed.append(step)
            title = step["to"]
        if passed:
            query[kind] = passed
    if elsewhere := [link for link in answer.get("interwiki", ()) if link["title"] == title]:
        return {**query, "interwiki": elsewhere}
    for number, page in answer.get("pages", {}).items():
        if page.get("title") == title:
            # Of one missing page the number is -1, of the next one -2 …
            return {**query, "pages": {number if int(number) > 0 else "-1": page}}
    return {**query, "pages": {"-1": {"ns": 0, "title": title, "missing": ""}}}


def _retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; it is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
