"""Descriptions from the opening sentences of Wikipedia articles, with their provenance.

The texts of Wikipedia are under CC BY-SA 4.0: a row that is fetched carries title, revision id, URL, licence and date.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import wikipediaapi

from labelmerge import __version__
from labelmerge.catalog import Recipe, load_descriptions
from labelmerge.clip_tokens import count_clip_tokens
from labelmerge.describe.curated import target_files
from labelmerge.describe.mediawiki import MediaWiki
from labelmerge.descriptions import Description, write_descriptions
from labelmerge.errors import UsageError
from labelmerge.names import MAX_TOKENS, sentence
from labelmerge.progress import Track, no_track

API_URL = "https://{language}.wikipedia.org/w/api.php"
LICENCE = "CC BY-SA 4.0"
CACHE = ".wikipedia"
"""The folder in `out` where answers are kept, so that nothing is asked for twice."""

_TITLES = "en"
"""The language of the titles in the `wikipedia` column."""


@dataclass(frozen=True)
class Kept:
    """A row whose description was not refreshed, and why; `ask` where another title in its row would help."""

    dataset: str
    index: int
    name: str
    title: str
    reason: str
    ask: bool


@dataclass(frozen=True)
class Refreshed:
    """What `refresh_from_wikipedia` did: the files written, how many rows have a fetched text, and all other rows."""

    paths: list[Path]
    refreshed: int
    kept: list[Kept]


@dataclass(frozen=True)
class Article:
    """The opening of an article at one revision, fetched on a day (``YYYY-MM-DD``)."""

    title: str
    url: str
    revision: str
    lead: str
    retrieved: str


def refresh_from_wikipedia(
    datasets: Sequence[Recipe],
    out: Path,
    *,
    contact: str,
    language: str = _TITLES,
    follow_redirects: bool = False,
    again: bool = False,
    force: bool = False,
    max_tokens: int = MAX_TOKENS,
    count_tokens: Callable[[str], int] = count_clip_tokens,
    api_url: str = API_URL,
    retries: int = 4,
    retry_wait: float = 1.0,
    timeout: float = 10.0,
    track: Track = no_track,
) -> Refreshed:
    """Write ``<out>/<dataset>.csv`` with the opening sentences of the article that each row names.

    A row keeps its old description where it names no article, or where the title is that of no article, of a
    disambiguation page or of a redirect, or where the article has no opening text, opens with too long a sentence or
    has no version in `language`: what a label means is never guessed. What is in `out` already is the starting point,
    so its `wikipedia` column may be edited; descriptions that are neither the shipped ones nor fetched are somebody's
    own and stay unless `force` is set. The CSV files are written after the last article was fetched; what the API has
    answered is kept in ``<out>/.wikipedia`` at once, so a run that was broken off goes on where it was.

    Args:
        datasets: whose rows.
        out: the user's folder.
        contact: an e-mail address or URL for the User-Agent header, which Wikimedia's policy asks for.
        language: whose Wikipedia, as in its address (``de``, ``pt``, ``zh-yue``); the titles stay the English ones,
            and the articles are those that the English ones link to.
        follow_redirects: take the article that a title redirects to, unless that is a section of one.
        again: ask for everything again, whatever is kept.
        force: replace the user's own descriptions too.
        max_tokens: as many whole sentences are taken as fit with the prompt's caption, counted by `count_tokens`.
        api_url: the MediaWiki API to ask; ``{language}`` is filled in.
        retries: how often a request is repeated when the server is busy or faulty (429, 5xx) or the connection breaks.
        retry_wait: seconds before the first repetition, doubled each time; ``Retry-After`` overrules it.
        timeout: seconds without an answer after which a request has failed.
        track: shows progress.

    Raises:
        LabelmergeError: the API can't be reached or does not answer as it should; no CSV was written.
        UsageError: `contact` can't stand in a header, `language` is none, or `out` is where a recipe's own
            descriptions are.
        DescriptionsError: a descriptions file is malformed.
        OutputError: a file can't be written.
    """
    if not contact or not (contact.isascii() and contact.isprintable()):
        raise UsageError("the contact must be an e-mail address or a URL in printable ASCII")
    if not re.fullmatch(r"[a-z]{2,12}(-[a-z]{2,12})*", language):
        raise UsageError(f"{language!r} is not the code of a Wikipedia, such as en, de or zh-yue")
    targets = target_files(datasets, out)
    rows: dict[Path, list[Description]] = {}
    kept: list[Kept] = []
    wanted: set[tuple[Path, int]] = set()

    def keep(path: Path, row: Description, reason: str, ask: bool = True) -> None:
        kept.append(Kept(targets[path].name, row.index, row.name, row.wikipedia, reason, ask))

    for path, recipe in targets.items():
        shipped = {row.index: row.description for row in load_descriptions(recipe)}
        rows[path] = load_descriptions(recipe, overrides=out)
        for row in rows[path]:
            if not _title(row):
                keep(path, row, "no Wikipedia title")
            elif not (force or row.source == "wikipedia" or row.description in ("", shipped[row.index])):
                keep(path, row, "the description is your own", ask=False)
            else:
                wanted.add((path, row.index))

    names = defaultdict(set)
    for path in targets:
        for row in rows[path]:
            if (path, row.index) in wanted:
                names[_title(row)].add(row.name)

    def wiki(of: str, links_to: str | None = None) -> MediaWiki:
        cache = out / CACHE / (f"{of}-to-{links_to}.json" if links_to else f"{of}.json")
        return MediaWiki(
            api_url.format(language=of),
            cache,
            user_agent=f"labelmerge/{__version__} ({contact})",
            links_to=links_to,
            again=again,
            retries=retries,
            retry_wait=retry_wait,
            timeout=timeout,
        )

    articles = _articles(sorted(names), language, follow_redirects, wiki, track)
    sharing: dict[str, set[str]] = defaultdict(set)
    for title, found in articles.items():
        if isinstance(found, Article):
            sharing[found.url] |= names[title]

    def beginning(article: Article) -> str:
        # What fits every name: rows that share an article mean the same, so they must get the same text.
        def fits(text: str) -> bool:
            return all(count_tokens(sentence(name, text)) <= max_tokens for name in sharing[article.url])

        return opening(article.lead, fits)

    texts = {found: beginning(found) for found in articles.values() if isinstance(found, Article)}

    for path in targets:
        for position, row in enumerate(rows[path]):
            if (path, row.index) not in wanted:
                continue
            article = articles[_title(row)]
            if isinstance(article, str):
                keep(path, row, article)
            elif not texts[article]:
                keep(path, row, f"the first sentence is longer than {max_tokens} tokens allow")
            else:
                rows[path][position] = _refreshed(row, texts[article], article, language)
    for path in targets:
        write_descriptions(path, rows[path])
    order = {recipe.name: place for place, recipe in enumerate(targets.values())}
    kept.sort(key=lambda row: (order[row.dataset], row.index))
    return Refreshed(list(targets), sum(map(len, rows.values())) - len(kept), kept)


def _title(row: Description) -> str:
    return unicodedata.normalize("NFC", row.wikipedia.strip())  # as MediaWiki stores titles


def _refreshed(row: Description, text: str, article: Article, language: str) -> Description:
    return replace(
        row,
        description=text,
        wikipedia=article.title if language == _TITLES else _title(row),
        source="wikipedia",
        revision=article.revision,
        url=article.url,
        licence=LICENCE,
        retrieved=article.retrieved,
    )


def _articles(
    titles: Sequence[str],
    language: str,
    follow_redirects: bool,
    wiki: Callable[..., MediaWiki],
    track: Track,
) -> dict[str, Article | str]:
    """For each English title its article in `language`, or the reason why there is none."""
    impossible = [title for title in titles if set(title) & set("|#<>[]{}")]
    found: dict[str, Article | str] = dict.fromkeys(impossible, "no article can have this title")
    titles = [title for title in titles if title not in found]
    if language == _TITLES:
        with closing(wiki(_TITLES)) as english:
            english.fetch(titles, track)
            return found | {title: _article(english, title, follow_redirects) for title in titles}
    linked: dict[str, str] = {}
    with closing(wiki(_TITLES, language)) as english:
        english.fetch(titles, track)
        for title in titles:
            page = _page(english, title, follow_redirects)
            if isinstance(page, str):
                found[title] = page
            elif not page.langlinks:
                found[title] = f"the article has no version in {language!r}"
            else:
                linked[title] = str(next(iter(page.langlinks.values())).title)
    with closing(wiki(language)) as foreign:
        foreign.fetch(sorted(set(linked.values())), track)
        # An article that was moved since the link was made is still the article that was linked to.
        return found | {title: _article(foreign, there, follow_redirects=True) for title, there in linked.items()}


def _article(wiki: MediaWiki, title: str, follow_redirects: bool) -> Article | str:
    """The article of this title, or the reason why there is none."""
    page = _page(wiki, title, follow_redirects)
    if isinstance(page, str):
        return page
    lead = clean(str(getattr(page, "extract", "")))
    if not lead:
        return "the article has no opening text"
    name, url = str(page.title), str(page.fullurl)
    if not (name.isprintable() and url.isprintable() and url.startswith(("https://", "http://"))):
        return "its title or address is none"
    return Article(name, url, str(page.lastrevid), lead, wiki.fetched(title))


def _page(wiki: MediaWiki, title: str, follow_redirects: bool) -> wikipediaapi.WikipediaPage | str:
    """The page of this title if it is an article, or the reason why it is none."""
    page = wiki.page(title)
    try:
        if not page.exists():
            return "there is no such article"
    except KeyError:  # a title such as "de:Haus" leads out of this Wikipedia
        return "the title is not one of this Wikipedia"
    if page.namespace != 0:
        return "the title is not that of an article"
    redirects = getattr(page, "redirects", ())
    if any("tofragment" in step for step in redirects):
        return "the title redirects into a section of another article"
    if "disambiguation" in getattr(page, "pageprops", {}):
        return "the title is a disambiguation page"
    if redirects and not follow_redirects:
        return f"the title redirects to {str(page.title)!r}"
    return page


_FORMULA = re.compile(r"\s*\{\\displaystyle(?:[^{}]|\{[^{}]*\})*\}")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_MOST_READ = 10_000  # characters; the first sentences are all that is wanted
_MOST_NESTED = 8  # brackets within each other
_BRACKETS = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）)")
_PRONUNCIATION = re.compile(r"\s*/[^/\s]*[ˈˌːəɪʊɛɔæɑʌɒɜθðʃʒŋɹ][^/]*/")
# East Asian sentences end without a blank.
_SENTENCE_END = re.compile(r"[.!?][\"”’»]?(?=\s|$)|[。！？][」』]?")
_NEXT_WORD = re.compile(r"[\s\"“„‘«¿¡]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s“\"‘])(?:[^\W\d_]|(?:[A-Za-z]\.)+[A-Za-z]|ca?|cf|approx|spp?|var|vs|No|St|Dr|Mrs?|Ms|Prof|Jr|Sr|Inc|Ltd|fl"
    r"|bzw|engl|franz|lat|vgl|env|esp|ing|lit)\.$"
)


def clean(lead: str) -> str:
    """The plain text of an article's opening in one line, without brackets, pronunciations and control characters."""
    text = _FORMULA.sub("", " ".join(_INVISIBLE.sub("", html.unescape(lead[:_MOST_READ])).split()))
    text = "".join(character for character in text if character.isprintable())
    for _ in range(_MOST_NESTED):
        text = _BRACKETS.sub("", text)
    text = _PRONUNCIATION.sub("", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    return re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text).strip()


def opening(text: str, fits: Callable[[str], bool]) -> str:
    """As many whole sentences from the start of `text` as fit; ``""`` where not even the first one does."""
    taken = ""
    for match in _SENTENCE_END.finditer(text):
        begins = _NEXT_WORD.match(text, match.end())
        follows = text[begins.end() :] if begins else ""
        if follows and (follows[0].islower() or _ABBREVIATION.search(text[: match.end()])):
            continue
        if not fits(text[: match.end()]):
            break
        taken = text[: match.end()]
    return taken
