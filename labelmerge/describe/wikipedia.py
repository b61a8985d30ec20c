"""Descriptions from the opening sentences of Wikipedia articles, with their provenance.

The texts of Wikipedia are under CC BY-SA 4.0: a row that is fetched carries title, revision id, URL, licence and date.
"""

from __future__ import annotations

import email.utils
import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import wikipediaapi

from labelmerge import __version__
from labelmerge.catalog import Recipe, load_descriptions
from labelmerge.describe.curated import target_files
from labelmerge.describe.files import Description, write_descriptions
from labelmerge.describe.prompts import CLIP_TOKENS, clip_tokens, sentence
from labelmerge.errors import LabelmergeError, UsageError
from labelmerge.progress import Track, no_track

API_URL = "https://en.wikipedia.org/w/api.php"
LICENCE = "CC BY-SA 4.0"

_log = logging.getLogger(__name__)

_MAX_WAIT = 120.0
"""Seconds: a server that asks for a longer pause is not waited for."""


@dataclass(frozen=True)
class Kept:
    """A row whose description was not refreshed, and why."""

    dataset: str
    index: int
    name: str
    title: str
    reason: str


@dataclass(frozen=True)
class Refreshed:
    """What `refresh_from_wikipedia` did: the files written, how many rows have a fetched text, and all other rows."""

    paths: list[Path]
    refreshed: int
    kept: list[Kept]


@dataclass(frozen=True)
class Article:
    """The opening of an article at one revision."""

    title: str
    url: str
    revision: str
    lead: str


def refresh_from_wikipedia(
    datasets: Sequence[Recipe],
    out: Path,
    *,
    contact: str | None = None,
    force: bool = False,
    max_tokens: int = CLIP_TOKENS,
    count_tokens: Callable[[str], int] = clip_tokens,
    api_url: str = API_URL,
    retries: int = 4,
    retry_wait: float = 1.0,
    timeout: float = 10.0,
    track: Track = no_track,
) -> Refreshed:
    """Write ``<out>/<dataset>.csv`` with the opening sentences of the article that each row names.

    A row keeps its old description where it names no article, or where the article is missing, a disambiguation page,
    reached through a redirect into a section, without an opening text, or opens with too long a sentence. What is in
    `out` already is the starting point, so its `wikipedia` column may be edited; descriptions that are neither the
    shipped ones nor fetched are somebody's own and stay unless `force` is set. Files are written after the last
    article was fetched.

    Args:
        datasets: whose rows.
        out: the user's folder.
        contact: an e-mail address or URL for the User-Agent header, which Wikimedia's policy asks for.
        force: replace the user's own descriptions too.
        max_tokens: as many whole sentences are taken as fit with the prompt's caption, counted by `count_tokens`.
        api_url: the MediaWiki API to ask.
        retries: how often a request is repeated when the server is busy or faulty (429, 5xx) or the connection breaks.
        retry_wait: seconds before the first repetition, doubled each time; ``Retry-After`` overrules it.
        timeout: seconds without an answer after which a request has failed.
        track: shows progress.

    Raises:
        LabelmergeError: the API can't be reached or does not answer as it should; nothing was written.
        UsageError: `contact` can't stand in a header, or `out` is where a recipe's own descriptions are.
        DescriptionsError: a descriptions file is malformed.
        OutputError: a file can't be written.
    """
    if contact and not (contact.isascii() and contact.isprintable()):
        raise UsageError("the contact must be printable ASCII: an e-mail address or a URL")
    targets = target_files(datasets, out)
    rows: dict[Path, list[Description]] = {}
    kept: list[Kept] = []
    wanted: set[tuple[Path, int]] = set()

    def keep(path: Path, row: Description, reason: str) -> None:
        kept.append(Kept(targets[path].name, row.index, row.name, row.wikipedia, reason))

    for path, recipe in targets.items():
        shipped = {row.index: row.description for row in load_descriptions(recipe)}
        rows[path] = load_descriptions(recipe, overrides=out)
        for row in rows[path]:
            if not row.wikipedia.strip():
                keep(path, row, "no Wikipedia title")
            elif not (force or row.source == "wikipedia" or row.description in ("", shipped[row.index])):
                keep(path, row, "the description is your own")
            else:
                wanted.add((path, row.index))

    names = defaultdict(set)
    for path in targets:
        for row in rows[path]:
            if (path, row.index) in wanted:
                names[row.wikipedia.strip()].add(row.name)
    with closing(_Transport(api_url, retries, retry_wait, timeout)) as transport:
        wiki = _client(contact, transport)
        articles = {title: _fetch(wiki, title) for title in track(sorted(names), "fetching articles", len(names))}

    def longest(title: str, lead: str) -> str:
        # What fits every name: rows that share an article mean the same, so they must get the same text.
        return opening(lead, lambda text: all(count_tokens(sentence(n, text)) <= max_tokens for n in names[title]))

    texts = {title: longest(title, found.lead) for title, found in articles.items() if isinstance(found, Article)}

    today = datetime.now(UTC).date()
    for path in targets:
        for position, row in enumerate(rows[path]):
            if (path, row.index) not in wanted:
                continue
            title = row.wikipedia.strip()
            article = articles[title]
            if isinstance(article, str):
                keep(path, row, article)
            elif not texts[title]:
                keep(path, row, f"the first sentence is longer than {max_tokens} tokens allow")
            else:
                rows[path][position] = _refreshed(row, texts[title], article, today)
    for path in targets:
        write_descriptions(path, rows[path])
    order = {recipe.name: place for place, recipe in enumerate(targets.values())}
    kept.sort(key=lambda row: (order[row.dataset], row.index))
    return Refreshed(list(targets), sum(map(len, rows.values())) - len(kept), kept)


def _refreshed(row: Description, text: str, article: Article, today: date) -> Description:
    return replace(
        row,
        description=text,
        source="wikipedia",
        revision=article.revision,
        url=article.url,
        licence=LICENCE,
        retrieved=today.isoformat(),
    )


def _client(contact: str | None, transport: httpx.BaseTransport) -> wikipediaapi.Wikipedia:
    # One request brings text, revision and kind of page, so the revision is that of the text.
    return wikipediaapi.Wikipedia(
        user_agent=f"labelmerge/{__version__} ({contact or 'no contact given'})",
        language="en",
        extra_api_params={
            "prop": "info|pageprops|extracts",
            "inprop": "url",
            "ppprop": "disambiguation",
            "exintro": 1,
            "explaintext": 1,
            "maxlag": 5,
        },
        max_retries=0,
        transport=transport,
    )


def _fetch(wiki: wikipediaapi.Wikipedia, title: str) -> Article | str:
    """The article of this title, or the reason why there is none."""
    if set(title) & set("|#<>[]{}"):
        return "no article can have this title"
    page = wiki.page(title)
    try:
        if not page.exists():
            return "there is no such article"
    except KeyError:  # a title such as "de:Haus" leads out of this Wikipedia
        return "the title is not one of this Wikipedia"
    if "disambiguation" in getattr(page, "pageprops", {}):
        return "the title is a disambiguation page"
    if any("tofragment" in step for step in getattr(page, "redirects", ())):
        return "the title redirects into a section of another article"
    lead = clean(str(getattr(page, "extract", "")))
    if not lead:
        return "the article has no opening text"
    return Article(str(page.title), str(page.fullurl), str(page.lastrevid), lead)


class _Transport(httpx.BaseTransport):
    """Carries the requests of the wikipedia-api package to `api_url`: patiently, and through the user's proxy.

    The package can retry too, but it minds no ``Retry-After`` of a 503 nor one that is a date, has no setting for the
    address, and goes around proxies.
    """

    def __init__(self, api_url: str, retries: int, retry_wait: float, timeout: float) -> None:
        self._url = httpx.URL(api_url)
        self._retries, self._wait = retries, retry_wait
        self._client = httpx.Client(timeout=timeout, follow_redirects=True)
        self._answered = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The API's answer, if it is one; raises LabelmergeError after the last attempt."""
        url = self._url.copy_with(query=request.url.query)
        for attempt in range(self._retries + 1):
            pause = self._wait * 2**attempt
            try:
                answer = self._client.get(url, headers={"User-Agent": request.headers["User-Agent"]})
            except httpx.RequestError as error:
                fault = f"can't be reached ({str(error) or type(error).__name__})"
                if not self._answered:  # offline, most likely: say so at once
                    break
            else:
                self._answered = True
                fault = _fault(answer)
                if not fault:
                    return httpx.Response(200, content=answer.content)
                asked = _retry_after(answer.headers.get("Retry-After"))
                if answer.status_code != 429 and answer.status_code < 500 and asked is None:
                    break
                pause = pause if asked is None else asked
                if pause > _MAX_WAIT:
                    fault += f" and asks to come back in {pause:.0f} s"
                    break
            if attempt < self._retries:
                _log.debug("%s %s; asking again in %.1f s", self._url, fault, pause)
                time.sleep(pause)
        raise LabelmergeError(
            fault,
            where=str(self._url),
            fix="Nothing was written. Try again later, or use `--from curated`, which needs no network",
        )

    def close(self) -> None:
        self._client.close()


def _fault(answer: httpx.Response) -> str:
    """What keeps an answer from being one of the MediaWiki API about a page; ``""`` where nothing does."""
    if answer.status_code != 200:
        return f"answered with HTTP status {answer.status_code}"
    try:
        data: Any = json.loads(answer.content)
    except ValueError:
        return "did not answer with JSON"
    if isinstance(data, dict) and "error" in data:
        error = data["error"]
        return f"refused: {error.get('info', error) if isinstance(error, dict) else error}".rstrip(".")
    query = data.get("query") if isinstance(data, dict) else None
    if not isinstance(query, dict) or not (query.get("pages") or query.get("interwiki")):
        return "did not answer as the MediaWiki API does"
    return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; it is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


_BRACKETS = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])")
_PRONUNCIATION = re.compile(r"\s*/[^/\s]*[ˈˌːəɪʊɛɔæɑʌɒɜθðʃʒŋɹ][^/]*/")
_SENTENCE_END = re.compile(r"[.!?][\"”’]?(?=\s+[\"“‘]?[A-Z0-9]|\s*$)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s“\"‘])(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|ca?|cf|approx|spp?|var|vs|No|St|Dr|Mrs?|Ms|Prof|Jr|Sr|Inc|Ltd|fl)\.$"
)


def clean(lead: str) -> str:
    """The plain text of an article's opening in one line, without brackets and pronunciations."""
    text = " ".join(lead.split())
    while (shorter := _BRACKETS.sub("", text)) != text:
        text = shorter
    text = _PRONUNCIATION.sub("", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    return re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text).strip()


def opening(text: str, fits: Callable[[str], bool]) -> str:
    """As many whole sentences from the start of `text` as fit; ``""`` where not even the first one does."""
    taken = ""
    for match in _SENTENCE_END.finditer(text):
        if match.end() < len(text) and _ABBREVIATION.search(text[: match.end()]):
            continue
        if not fits(text[: match.end()]):
            break
        taken = text[: match.end()]
    return taken
