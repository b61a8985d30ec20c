"""Against a real HTTP server on the loopback interface that answers as the MediaWiki API does, faults included."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import Result

from labelmerge.catalog import Recipe, load_recipe
from labelmerge.describe import wikipedia
from labelmerge.describe.files import Description, read_descriptions, write_descriptions
from labelmerge.describe.wikipedia import clean, opening, refresh_from_wikipedia
from labelmerge.errors import LabelmergeError, UsageError

CAR = (
    "A car, or an automobile ( AW-tə-moh-BEEL (listen)), is a motor vehicle with wheels. "
    "Most definitions of cars say that they run primarily on roads, seat one to eight people, have four wheels, and "
    "mainly transport people rather than cargo. There are around one billion cars in use worldwide."
)


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


def page(title: str, extract: str | None, **more: Any) -> dict[str, Any]:
    query = {key: more.pop(key) for key in ("redirects", "normalized") if key in more}
    content = {"pageid": 7, "ns": 0, "title": title, "lastrevid": 1234567, **more}
    content["fullurl"] = "https://en.wikipedia.org/wiki/" + title.replace(" ", "_")
    if extract is not None:
        content["extract"] = extract
    return {"batchcomplete": "", "query": {**query, "pages": {"7": content}}}


MISSING = {"batchcomplete": "", "query": {"pages": {"-1": {"ns": 0, "title": "?", "missing": ""}}}}


class Wiki:
    """The articles there are, and the faults to show, one for each request, before them."""

    def __init__(self) -> None:
        self.articles: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str], str, float]] = []
        wiki = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                split = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(split.query).items()}
                title = query.get("titles", "")
                wiki.requests.append((split.path, query, self.headers["User-Agent"], time.monotonic()))
                faults = wiki.faults.get(title, [])
                body = json.dumps(wiki.articles.get(title, MISSING)).encode()
                answer = faults.pop(0) if faults else Answer(body=body)
                time.sleep(answer.delay)
                if answer.drop:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that hung up is no news
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/w/api.php"

    def titles(self) -> list[str]:
        return [query["titles"] for _, query, _, _ in self.requests]


@pytest.fixture
def wiki(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wiki]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    wiki = Wiki()
    thread = threading.Thread(target=wiki.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield wiki
    wiki.server.shutdown()
    wiki.server.server_close()
    thread.join()


def words(text: str) -> int:
    return len(text.split())


def recipe(folder: Path, rows: list[Description], name: str = "mine") -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    write_descriptions(folder / f"{name}.csv", rows)
    (folder / f"{name}.toml").write_text(
        f'name = "{name}"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "{name}.csv"\n[layout]\n'
    )
    return load_recipe(folder / f"{name}.toml")


def refresh(wiki: Wiki, recipes: list[Recipe], out: Path, **more: Any) -> wikipedia.Refreshed:
    settings: dict[str, Any] = {"max_tokens": 200, "retry_wait": 0.01, "timeout": 2.0, **more}
    return refresh_from_wikipedia(recipes, out, api_url=wiki.url, count_tokens=words, **settings)


def test_a_row_gets_text_and_provenance(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Automobile"] = page("Car", CAR, redirects=[{"from": "Automobile", "to": "Car"}])
    mine = recipe(tmp_path, [Description(3, "auto", "An old text.", "Automobile", "curated", note="mine")])
    done = refresh(wiki, [mine], tmp_path / "out", contact="me@example.org")
    (row,) = read_descriptions(tmp_path / "out" / "mine.csv")
    assert row.description.startswith("A car, or an automobile, is a motor vehicle with wheels. Most definitions")
    assert (row.index, row.name, row.wikipedia, row.note) == (3, "auto", "Automobile", "mine")
    assert (row.source, row.revision, row.licence) == ("wikipedia", "1234567", "CC BY-SA 4.0")
    assert row.url == "https://en.wikipedia.org/wiki/Car"
    assert row.retrieved == datetime.now(UTC).date().isoformat()
    assert (done.paths, done.refreshed, done.kept) == ([tmp_path / "out" / "mine.csv"], 1, [])
    assert read_descriptions(mine.descriptions)[0].description == "An old text.", "the recipe's own file stays"


def test_one_polite_request_for_each_article(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = page("Car", CAR)
    one = recipe(tmp_path, [Description(0, "car", wikipedia="Car"), Description(1, "auto", wikipedia=" Car ")])
    two = recipe(tmp_path, [Description(0, "Car", wikipedia="Car")], "yours")
    done = refresh(wiki, [one, two, one], tmp_path / "out", contact="me@example.org")
    assert done.refreshed == 3 and len(done.paths) == 2
    ((path, query, agent, _),) = wiki.requests
    assert path == "/w/api.php"
    assert query["action"] == "query" and query["exintro"] == "1" and query["maxlag"] == "5"
    assert agent.startswith("labelmerge/") and "me@example.org" in agent


def test_rows_that_share_an_article_get_the_same_text(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Cattle"] = page("Cattle", "Cattle are big. They eat grass.")
    rows = [Description(0, "cow", wikipedia="Cattle"), Description(1, "a very long name", wikipedia="Cattle")]
    refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out", max_tokens=15)  # the long name leaves no room for two
    written = read_descriptions(tmp_path / "out" / "mine.csv")
    assert [row.description for row in written] == ["Cattle are big."] * 2


def test_rows_without_a_usable_article_keep_their_text_and_are_listed(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Mouse (disambiguation)"] = page("Mouse", "Mouse may refer to:", pageprops={"disambiguation": ""})
    wiki.articles["Empty"] = page("Empty", " (brackets only) ")
    wiki.articles["No extract"] = page("No extract", None)
    wiki.articles["Part"] = page("Whole", "A whole.", redirects=[{"from": "Part", "to": "Whole", "tofragment": "P"}])
    wiki.articles["Long"] = page("Long", "One " + "very " * 300 + "long sentence. Short.")
    wiki.articles["de:Haus"] = {"query": {"interwiki": [{"title": "de:Haus", "iw": "de"}]}}
    wiki.articles["Car"] = page("Car", CAR)
    titles = ["", "Mouse (disambiguation)", "Nothing", "Empty", "No extract", "Part", "Long", "de:Haus", "A|B", "Car"]
    rows = [Description(i, f"n{i}", f"Text {i}.", title, "curated") for i, title in enumerate(titles)]
    done = refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out")
    assert done.refreshed == 1
    assert [(row.index, row.reason) for row in done.kept] == [
        (0, "no Wikipedia title"),
        (1, "the title is a disambiguation page"),
        (2, "there is no such article"),
        (3, "the article has no opening text"),
        (4, "the article has no opening text"),
        (5, "the title redirects into a section of another article"),
        (6, "the first sentence is longer than 200 tokens allow"),
        (7, "the title is not one of this Wikipedia"),
        (8, "no article can have this title"),
    ]
    written = read_descriptions(tmp_path / "out" / "mine.csv")
    assert written[:9] == rows[:9] and written[9].source == "wikipedia"
    assert len(wiki.titles()) == len(set(wiki.titles())) == 8


def test_busy_and_faulty_answers_are_asked_for_again(wiki: Wiki, tmp_path: Path) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    lag = json.dumps({"error": {"code": "maxlag", "info": "Waiting for a server"}}).encode()
    wiki.articles["A"] = page("A", "An A.")
    wiki.articles["Car"] = page("Car", CAR)
    wiki.faults["Car"] = [
        Answer(429, headers={"Retry-After": "0"}),
        Answer(503, headers={"Retry-After": soon}),
        Answer(200, lag, {"Retry-After": "0"}),
        Answer(502, b"<html>bad gateway</html>"),
        Answer(drop=True),
        Answer(delay=0.6),
    ]
    rows = [Description(0, "a", wikipedia="A"), Description(1, "car", wikipedia="Car")]
    done = refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out", retries=6, timeout=0.3)
    assert done.refreshed == 2
    assert wiki.titles() == ["A"] + ["Car"] * 7


def test_retry_after_is_honoured_to_the_second(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = page("Car", CAR)
    wiki.faults["Car"] = [Answer(429, headers={"Retry-After": "1"})]
    refresh(wiki, [recipe(tmp_path, [Description(0, "car", wikipedia="Car")])], tmp_path / "out")
    first, second = (moment for *_, moment in wiki.requests)
    assert second - first >= 1.0


@pytest.mark.parametrize(
    ("answer", "says", "asked"),
    [
        (Answer(500), "HTTP status 500", 3),
        (Answer(429), "HTTP status 429", 3),
        (Answer(429, headers={"Retry-After": "3600"}), "asks to come back in 3600 s", 1),
        (Answer(403), "HTTP status 403", 1),
        (Answer(200, b"<html>Please log in to this hotel</html>"), "did not answer with JSON", 1),
        (Answer(200, b"[1, 2]"), "did not answer as the MediaWiki API does", 1),
        (Answer(200, b'{"query": {}}'), "did not answer as the MediaWiki API does", 1),
        (Answer(200, b'{"error": {"code": "x", "info": "No such action."}}'), "refused: No such action.", 1),
    ],
)
def test_what_does_not_get_better_ends_the_run(
    wiki: Wiki, tmp_path: Path, answer: Answer, says: str, asked: int
) -> None:
    wiki.articles["A"] = page("A", "An A.")
    wiki.faults["B"] = [answer] * 3
    rows = [Description(0, "a", wikipedia="A"), Description(1, "b", wikipedia="B")]
    with pytest.raises(LabelmergeError) as caught:
        refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out", retries=2)
    assert says in str(caught.value) and wiki.url in str(caught.value) and "\n" not in str(caught.value)
    assert wiki.titles() == ["A"] + ["B"] * asked
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_without_a_network_it_says_so_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w/api.php"
        start = time.monotonic()
        with pytest.raises(LabelmergeError, match="can't be reached"):
            refresh_from_wikipedia(
                [recipe(tmp_path, [Description(0, "car", wikipedia="Car")])], tmp_path / "out", api_url=url
            )
    assert time.monotonic() - start < 1.0
    assert not (tmp_path / "out").exists()


def test_a_second_run_refreshes_what_was_fetched_and_leaves_what_was_written_by_hand(
    wiki: Wiki, tmp_path: Path
) -> None:
    wiki.articles["Car"] = page("Car", "A car is an old thing.")
    wiki.articles["Road"] = page("Road", "A road is for cars.")
    shipped = [Description(0, "car", wikipedia="Car"), Description(1, "road", "Shipped.", "Street", "curated")]
    mine, out = recipe(tmp_path, shipped), tmp_path / "out"
    by_hand = Description(1, "road", "What I call a road.", "Road", "curated")
    write_descriptions(out / "mine.csv", [by_hand])
    done = refresh(wiki, [mine], out)
    assert [(row.name, row.reason) for row in done.kept] == [("road", "the description is your own")]
    wiki.articles["Car"] = page("Car", "A car is a new thing.")
    refresh(wiki, [mine], out)
    assert [row.description for row in read_descriptions(out / "mine.csv")] == [
        "A car is a new thing.",
        "What I call a road.",
    ]
    assert refresh(wiki, [mine], out, force=True).kept == []
    assert read_descriptions(out / "mine.csv")[1].description == "A road is for cars."


def test_the_command_says_what_it_did(
    wiki: Wiki, tmp_path: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        wikipedia, "refresh_from_wikipedia", partial(refresh_from_wikipedia, api_url=wiki.url, count_tokens=words)
    )
    wiki.articles["Car"] = page("Car", CAR)
    rows = [Description(0, "car", "Old.", "Car"), Description(1, "rider", "A rider."), Description(2, "pole")]
    mine, out = recipe(tmp_path, rows), tmp_path / "out"
    result = run("describe", mine.path, "--from", "wikipedia", "--out", out, "--contact", "me@example.org")
    assert result.exit_code == 0, result.output
    assert "mine: 2 kept as before, no Wikipedia title: rider, pole\n" in result.stdout
    assert "1 from Wikipedia (CC BY-SA 4.0), 2 kept as before.\n" in result.stdout
    assert result.stdout.endswith(f"Wrote 3 labels in 1 file to {out}; 1 of them have no description yet.\n")
    assert "me@example.org" in wiki.requests[0][2]

    result = run("describe", mine.path, "--from", "wikipedia", "--out", out, "--json")
    said = json.loads(result.stdout)
    assert (said["written"], said["refreshed"]) == ([str(out / "mine.csv")], 1)
    assert [row["name"] for row in said["kept"]] == ["rider", "pole"]

    wiki.faults["Car"] = [Answer(403)]
    result = run("describe", mine.path, "--from", "wikipedia", "--out", tmp_path / "none")
    assert result.exit_code == 1 and "HTTP status 403" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "none").exists()


def test_bad_arguments(wiki: Wiki, tmp_path: Path) -> None:
    mine = recipe(tmp_path, [Description(0, "car", wikipedia="Car")])
    with pytest.raises(UsageError, match="contact"):
        refresh(wiki, [mine], tmp_path / "out", contact="me\r\nX-Evil: 1")
    with pytest.raises(UsageError, match="own descriptions file"):
        refresh(wiki, [mine], tmp_path)
    assert wiki.requests == []


@pytest.mark.parametrize(
    ("lead", "plain"),
    [
        ("A dog (Canis familiaris (or lupus)) barks.", "A dog barks."),
        ("The train  (UK: /treɪn/ ; US: ) , [1] runs .\n", "The train, runs."),
        ("A car /kɑːr/ is fast and/or slow at 3 km/h or mi/h.", "A car is fast and/or slow at 3 km/h or mi/h."),
        ("First line\nand second (", "First line and second ("),
        ("A thing ( ; ), ; really.", "A thing, really."),
        ("", ""),
    ],
)
def test_brackets_and_pronunciations_go(lead: str, plain: str) -> None:
    assert clean(lead) == plain


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        (1, ""),
        (12, "It is used, e.g. by J. R. Smith, in the U.S. Army."),
        (14, "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it?"),
        (99, "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it? 3.5 km long."),
    ],
)
def test_whole_sentences_only(limit: int, taken: str) -> None:
    text = "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it? 3.5 km long. And an unfinished"
    assert opening(text, lambda part: words(part) <= limit) == taken
