"""Against a real HTTP server on the loopback interface that answers as the MediaWiki API does, faults included."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
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
from labelmerge.describe.wikipedia import clean, opening, refresh_from_wikipedia
from labelmerge.descriptions import Description, read_descriptions, write_descriptions
from labelmerge.errors import LabelmergeError, UsageError

CAR = (
    "A car, or an automobile ( AW-tə-moh-BEEL (listen)), is a motor vehicle with wheels. "
    "Most definitions of cars say that they run primarily on roads, seat one to eight people, have four wheels, and "
    "mainly transport people rather than cargo. There are around one billion cars in use worldwide."
)


@dataclass
class Answer:
    """What the server answers instead of the truth."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    truncate: bool = False


@dataclass
class Wiki:
    """The articles of all languages, and the faults to show, one for each request that asks about a title, first."""

    articles: dict[str, str | None] = field(default_factory=dict)  # title -> opening; None where the API sends none
    redirects: dict[str, str] = field(default_factory=dict)  # title -> title, or title#section
    disambiguations: set[str] = field(default_factory=set)
    links: dict[tuple[str, str], str] = field(default_factory=dict)  # (title, language) -> title there
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], str, float]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    parts: bool = False  # give half of the openings now, and the rest when asked to continue
    url: str = ""

    def asked(self) -> list[str]:
        return [query["titles"] for _, query, _, _ in self.requests]

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        titles = query["titles"].split("|")
        if len(titles) > 50:
            return {"error": {"code": "toomanyvalues", "info": "Too many values supplied for parameter titles."}}
        said: dict[str, list[dict[str, str]]] = {"normalized": [], "redirects": [], "interwiki": []}
        pages: dict[str, dict[str, Any]] = {}
        missing = 0
        room = 10**6 if query.get("prop") == "info|pageprops|langlinks" else 20
        resume = int(query.get("excontinue", 0))
        if self.parts:
            room = (len(titles) + 1) // 2
        for number, asked in enumerate(titles):
            title = asked.replace("_", " ")
            title = title[:1].upper() + title[1:]
            if title != asked:
                said["normalized"].append({"from": asked, "to": title})
            if title.startswith("De:"):
                said["normalized"] = [step for step in said["normalized"] if step["from"] != asked]
                said["interwiki"].append({"title": asked, "iw": "de"})
                continue
            if title in self.redirects:
                to, _, section = self.redirects[title].partition("#")
                step = {"from": title, "to": to} | ({"tofragment": section} if section else {})
                if step not in said["redirects"]:
                    said["redirects"].append(step)
                title = to
            if title not in self.articles:
                missing -= 1
                pages[str(missing)] = {"ns": 0, "title": title, "missing": ""}
                continue
            space = 14 if title.startswith("Category:") else 0
            page: dict[str, Any] = {"pageid": 7 + number, "ns": space, "title": title, "lastrevid": 1234567}
            page["fullurl"] = "https://en.wikipedia.org/wiki/" + title.replace(" ", "_")
            if title in self.disambiguations:
                page["pageprops"] = {"disambiguation": ""}
            extract = self.articles[title]
            if "extracts" in query["prop"] and extract is not None and resume <= number < resume + room:
                page["extract"] = extract
            language = query.get("lllang", "")
            if (title, language) in self.links:
                page["langlinks"] = [{"lang": language, "url": "https://x", "*": self.links[title, language]}]
            pages[str(page["pageid"])] = page
        whole = {key: value for key, value in said.items() if value} | ({"pages": pages} if pages else {})
        if resume + room < len(titles):
            return {"continue": {"excontinue": str(resume + room), "continue": "||"}, "query": whole}
        return {"batchcomplete": "", "query": whole}


def handler(wiki: Wiki) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(split.query).items()}
            wiki.requests.append((split.path, query, self.headers["User-Agent"], time.monotonic()))
            wiki.connections.add(self.client_address[1])
            titles = query.get("titles", "").split("|")
            faults = next((wiki.faults[title] for title in titles if wiki.faults.get(title)), [])
            answer = faults.pop(0) if faults else Answer(body=json.dumps(wiki.answer(query)).encode())
            time.sleep(answer.delay)
            if answer.drop:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.body) + 100 * answer.truncate))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = answer.truncate

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def wiki(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wiki]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    wiki = Wiki()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(wiki))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that hung up is no news
    wiki.url = f"http://127.0.0.1:{server.server_address[1]}/{{language}}/api.php"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield wiki
    server.shutdown()
    server.server_close()
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


def titled(*titles: str) -> list[Description]:
    return [Description(i, f"n{i}", f"Text {i}.", title, "curated") for i, title in enumerate(titles)]


def refresh(wiki: Wiki, recipes: list[Recipe], out: Path, **more: Any) -> wikipedia.Refreshed:
    settings: dict[str, Any] = {"max_tokens": 200, "retry_wait": 0.01, "timeout": 2.0, "contact": "me@example.org"}
    return refresh_from_wikipedia(recipes, out, api_url=wiki.url, count_tokens=words, **{**settings, **more})


def test_a_row_gets_text_and_provenance(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = CAR
    mine = recipe(tmp_path, [Description(3, "auto", "An old text.", "Car", "curated", note="mine")])
    done = refresh(wiki, [mine], tmp_path / "out")
    (row,) = read_descriptions(tmp_path / "out" / "mine.csv")
    assert row.description.startswith("A car, or an automobile, is a motor vehicle with wheels. Most definitions")
    assert (row.index, row.name, row.wikipedia, row.note) == (3, "auto", "Car", "mine")
    assert (row.source, row.revision, row.licence) == ("wikipedia", "1234567", "CC BY-SA 4.0")
    assert row.url == "https://en.wikipedia.org/wiki/Car"
    assert row.retrieved == datetime.now(UTC).date().isoformat()
    assert (done.paths, done.refreshed, done.kept) == ([tmp_path / "out" / "mine.csv"], 1, [])
    assert read_descriptions(mine.descriptions)[0].description == "An old text.", "the recipe's own file stays"


def test_it_is_polite(wiki: Wiki, tmp_path: Path) -> None:
    """Each article once, twenty at a time, over one connection, saying who asks."""
    wiki.articles |= {f"A {number}": f"An {number}." for number in range(45)}
    one = recipe(tmp_path, titled(*wiki.articles, " A 7 "))
    two = recipe(tmp_path, titled("A 7"), "yours")
    done = refresh(wiki, [one, two, one], tmp_path / "out")
    assert done.refreshed == 47 and len(done.paths) == 2
    assert [len(titles.split("|")) for titles in wiki.asked()] == [20, 20, 5]
    assert len(wiki.connections) == 1
    for path, query, agent, _ in wiki.requests:
        assert path == "/en/api.php"
        assert query["action"] == "query" and query["exintro"] == "1" and query["maxlag"] == "5"
        assert agent.startswith("labelmerge/") and "me@example.org" in agent
    for number, row in enumerate(read_descriptions(tmp_path / "out" / "mine.csv")[:45]):
        assert row.description == f"An {number}.", "every row has the text of its own article"


def test_an_answer_in_parts_is_put_together(wiki: Wiki, tmp_path: Path) -> None:
    wiki.parts = True
    wiki.articles |= {f"A {number}": f"An {number}." for number in range(7)}
    refresh(wiki, [recipe(tmp_path, titled(*wiki.articles))], tmp_path / "out")
    written = read_descriptions(tmp_path / "out" / "mine.csv")
    assert [row.description for row in written] == [f"An {number}." for number in range(7)]
    assert [query.get("excontinue") for _, query, _, _ in wiki.requests] == [None, "4"]


def test_what_was_fetched_is_not_fetched_again(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles |= {f"A {number:02}": f"An {number}." for number in range(50)}
    mine, out = recipe(tmp_path, titled(*wiki.articles)), tmp_path / "out"
    wiki.faults["A 45"] = [Answer(500)] * 3
    with pytest.raises(LabelmergeError, match="HTTP status 500. What came so far is kept. Run the same command again"):
        refresh(wiki, [mine], out, retries=2)
    assert not (out / "mine.csv").exists(), "no CSV is written by halves"
    wiki.requests.clear()
    assert refresh(wiki, [mine], out).refreshed == 50
    assert [len(titles.split("|")) for titles in wiki.asked()] == [10]
    wiki.requests.clear()
    assert refresh(wiki, [mine], out).refreshed == 50 and wiki.asked() == []
    assert refresh(wiki, [mine], out, again=True).refreshed == 50 and len(wiki.asked()) == 3
    refresh(wiki, [recipe(tmp_path, titled("A 00"), "yours")], out, again=True)
    cache = json.loads((out / ".wikipedia" / "en.json").read_bytes())
    assert len(cache["articles"]) == 50, "what is kept of other articles stays"


def test_killed_and_run_again(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles |= {f"A {number:02}": f"An {number}." for number in range(25)}
    mine, out = recipe(tmp_path, titled(*wiki.articles)), tmp_path / "out"
    wiki.faults["A 22"] = [Answer(delay=30)]
    code = (
        "from pathlib import Path; from labelmerge.catalog import load_recipe; "
        "from labelmerge.describe.wikipedia import refresh_from_wikipedia as refresh; "
        f"refresh([load_recipe({str(mine.path)!r})], Path({str(out)!r}), contact='me', api_url={wiki.url!r}, "
        "timeout=60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"NO_PROXY": "127.0.0.1"}) as process:
        deadline = time.monotonic() + 20
        while len(wiki.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert len(wiki.requests) == 2
    wiki.requests.clear()
    assert refresh(wiki, [mine], out).refreshed == 25
    assert wiki.asked() == ["A 20|A 21|A 22|A 23|A 24"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": "other"}', b'{"format": "labelmerge-wikipedia/1"}', b"\xff"]
)
def test_a_damaged_cache_is_made_anew(wiki: Wiki, tmp_path: Path, content: bytes) -> None:
    wiki.articles["Car"] = CAR
    cache = tmp_path / "out" / ".wikipedia" / "en.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    assert refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "out").refreshed == 1
    assert json.loads(cache.read_bytes())["articles"].keys() == {"Car"}


def test_rows_that_share_an_article_get_the_same_text(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Cattle"] = "Cattle are big. They eat grass."
    rows = [Description(0, "cow", wikipedia="Cattle"), Description(1, "a very long name", wikipedia="Cattle")]
    refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out", max_tokens=15)  # the long name leaves no room for two
    written = read_descriptions(tmp_path / "out" / "mine.csv")
    assert [row.description for row in written] == ["Cattle are big."] * 2
    wiki.redirects["Oxen"] = "Cattle"
    rows[1] = Description(1, "a very long name", wikipedia="Oxen")
    refresh(wiki, [recipe(tmp_path, rows, "yours")], tmp_path / "out", max_tokens=15, follow_redirects=True)
    written = read_descriptions(tmp_path / "out" / "yours.csv")
    assert [row.description for row in written] == ["Cattle are big."] * 2


def test_a_title_is_asked_for_instead_of_guessed(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles |= {"Mouse (disambiguation)": "Mouse may refer to:", "Empty": " (brackets only) ", "No extract": None}
    wiki.articles |= {"Whole": "A whole.", "Long": "One " + "very " * 300 + "long sentence. Short.", "Car": CAR}
    wiki.articles |= {"Crane": "Crane may refer to:", "Category:Cars": "This category holds cars."}
    wiki.disambiguations |= {"Mouse (disambiguation)", "Crane"}
    wiki.redirects |= {"Part": "Whole#P", "Automobile": "Car", "Cranes": "Crane"}
    reasons = {
        "": "no Wikipedia title",
        "Mouse (disambiguation)": "the title is a disambiguation page",
        "Nothing": "there is no such article",
        "Nothing else": "there is no such article",
        "Empty": "the article has no opening text",
        "No extract": "the article has no opening text",
        "Part": "the title redirects into a section of another article",
        "Automobile": "the title redirects to 'Car'",
        "Cranes": "the title is a disambiguation page",
        "Long": "the first sentence is longer than 200 tokens allow",
        "Category:Cars": "the title is not that of an article",
        "de:Haus": "the title is not one of this Wikipedia",
        "A|B": "no article can have this title",
    }
    rows = titled(*reasons, "car")
    done = refresh(wiki, [recipe(tmp_path, rows)], tmp_path / "out")
    assert {row.title: row.reason for row in done.kept} == reasons
    assert all(row.ask for row in done.kept)
    *same, car = read_descriptions(tmp_path / "out" / "mine.csv")
    assert same == rows[:-1] and car.description.startswith("A car") and car.wikipedia == "Car"
    assert len(wiki.requests) == 1

    rows = [Description(0, "auto", wikipedia="Automobile"), Description(1, "part", wikipedia="Part")]
    done = refresh(wiki, [recipe(tmp_path, rows, "yours")], tmp_path / "out", follow_redirects=True)
    assert [row.reason for row in done.kept] == ["the title redirects into a section of another article"]
    assert read_descriptions(tmp_path / "out" / "yours.csv")[0].wikipedia == "Car", "the title of what was read"


def test_another_language(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles |= {"Car": CAR, "Cup": "A cup.", "Mouse": "Mouse may refer to:"}
    wiki.articles |= {"Auto": "Ein Auto ist ein Kraftfahrzeug, z. B. ein Pkw. Es ist mehrspurig."}
    wiki.links |= {("Car", "de"): "Automobil"}
    wiki.redirects |= {"Automobil": "Auto"}
    wiki.disambiguations |= {"Mouse"}
    out = tmp_path / "out"
    rows = [Description(i, title.lower(), "", title) for i, title in enumerate(["Car", "Cup", "Mouse"])]
    done = refresh(wiki, [recipe(tmp_path, rows)], out, language="de", max_tokens=16)
    car, *rest = read_descriptions(out / "mine.csv")
    assert car.description == "Ein Auto ist ein Kraftfahrzeug, z. B. ein Pkw."
    assert (car.wikipedia, car.url) == ("Car", "https://en.wikipedia.org/wiki/Auto")
    assert [row.reason for row in done.kept] == [
        "the article has no version in 'de'",
        "the title is a disambiguation page",
    ]
    assert [(path, query["titles"], query.get("lllang")) for path, query, _, _ in wiki.requests] == [
        ("/en/api.php", "Car|Cup|Mouse", "de"),
        ("/de/api.php", "Automobil", None),
    ]
    wiki.requests.clear()
    refresh(wiki, [recipe(tmp_path, rows)], out, language="de")
    assert wiki.requests == []
    refresh(wiki, [recipe(tmp_path, rows)], out)
    assert len(wiki.requests) == 1 and read_descriptions(out / "mine.csv")[0].description.startswith("A car")


def test_busy_and_faulty_answers_are_asked_for_again(wiki: Wiki, tmp_path: Path) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    lag = json.dumps({"error": {"code": "maxlag", "info": "Waiting for a server"}}).encode()
    moved = {"Location": wiki.url.format(language="moved") + "?titles=Z&prop=extracts"}
    wiki.articles |= {f"A {number:02}": "An A." for number in range(20)} | {"Z": CAR}
    faults = [
        Answer(429, headers={"Retry-After": "0"}),
        Answer(503, headers={"Retry-After": soon}),
        Answer(200, lag, {"Retry-After": "0"}),
        Answer(200, lag),
        Answer(502, b"<html>bad gateway</html>"),
        Answer(200, b'{"query": {"pag', truncate=True),
        Answer(200, b'{"query": {"pag'),
        Answer(drop=True),
        Answer(delay=0.6),
        Answer(301, headers=moved),
    ]
    wiki.faults["Z"] = list(faults)
    done = refresh(
        wiki, [recipe(tmp_path, titled(*wiki.articles))], tmp_path / "out", retries=9, timeout=0.3, retry_wait=0.001
    )
    assert done.refreshed == 21
    assert wiki.asked()[1:] == ["Z"] * (len(faults) + 1)
    assert wiki.requests[-1][0] == "/moved/api.php"


def test_retry_after_is_honoured_to_the_second(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = CAR
    wiki.faults["Car"] = [Answer(429, headers={"Retry-After": "1"})]
    refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "out")
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
        (Answer(200, b'{"query": {"pages": [{"title": "B"}]}}'), "did not answer as the MediaWiki API does", 1),
        (Answer(200, b'{"query": {"pages": {"1": "B"}}}'), "did not answer as the MediaWiki API does", 1),
        (Answer(200, b'{"query": {}}'), "did not answer as the MediaWiki API does", 1),
        (Answer(200, b'{"error": {"code": "x", "info": "No such action."}}'), "refused: No such action.", 1),
    ],
)
def test_what_does_not_get_better_ends_the_run(
    wiki: Wiki, tmp_path: Path, answer: Answer, says: str, asked: int
) -> None:
    wiki.faults["B"] = [answer] * 3
    with pytest.raises(LabelmergeError) as caught:
        refresh(wiki, [recipe(tmp_path, titled("B"))], tmp_path / "out", retries=2)
    assert says in str(caught.value) and wiki.url.format(language="en") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert wiki.asked() == ["B"] * asked
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_without_a_network_it_says_so_and_does_not_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s to try again"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w/api.php"
        with pytest.raises(LabelmergeError, match="can't be reached"):
            refresh_from_wikipedia([recipe(tmp_path, titled("Car"))], tmp_path / "out", contact="me", api_url=url)
    assert not (tmp_path / "out").exists()


def test_a_second_run_refreshes_what_was_fetched_and_leaves_what_was_written_by_hand(
    wiki: Wiki, tmp_path: Path
) -> None:
    wiki.articles |= {"Car": "A car is an old thing.", "Road": "A road is for cars."}
    shipped = [Description(0, "car", wikipedia="Car"), Description(1, "road", "Shipped.", "Street", "curated")]
    mine, out = recipe(tmp_path, shipped), tmp_path / "out"
    by_hand = Description(1, "road", "What I call a road.", "Road", "curated")
    write_descriptions(out / "mine.csv", [by_hand])
    done = refresh(wiki, [mine], out)
    assert [(row.name, row.reason, row.ask) for row in done.kept] == [("road", "the description is your own", False)]
    wiki.articles["Car"] = "A car is a new thing."
    refresh(wiki, [mine], out, again=True)
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
    monkeypatch.delenv("LABELMERGE_CONTACT", raising=False)
    wiki.articles["Car"] = CAR
    wiki.redirects["Pillar"] = "Column"
    wiki.articles["Column"] = "A column."
    rows = [Description(0, "car", "Old.", "Car"), Description(1, "rider", "A rider."), Description(2, "pole")]
    rows.append(Description(3, "pillar", wikipedia="Pillar"))
    mine, out = recipe(tmp_path, rows), tmp_path / "out"
    contact = ("--contact", "me@example.org")
    result = run("describe", mine.path, "--from", "wikipedia", "--out", out, *contact)
    assert result.exit_code == 0, result.output
    assert "mine: 2 kept as before, no Wikipedia title: rider, pole\n" in result.stdout
    assert "mine: 1 kept as before, the title redirects to 'Column': pillar\n" in result.stdout
    assert "write the exact title of its article into the wikipedia column" in result.stdout
    assert "1 from Wikipedia (CC BY-SA 4.0), 3 kept as before.\n" in result.stdout
    assert result.stdout.endswith(f"Wrote 4 labels in 1 file to {out}; 2 of them have no description yet.\n")
    assert "me@example.org" in wiki.requests[0][2]

    result = run("describe", mine.path, "--from", "wikipedia", "--out", out, "--json", "--follow-redirects", *contact)
    said = json.loads(result.stdout)
    assert (said["written"], said["refreshed"]) == ([str(out / "mine.csv")], 2)
    assert [row["name"] for row in said["kept"]] == ["rider", "pole"]

    wiki.faults["Car"] = [Answer(403)]
    result = run("describe", mine.path, "--from", "wikipedia", "--out", tmp_path / "none", *contact)
    assert result.exit_code == 1 and "HTTP status 403" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "none").exists()

    result = run("describe", mine.path, "--from", "wikipedia", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "Give --contact" in result.stderr
    for flag in (("--language", "de"), ("--again",), ("--follow-redirects",)):
        result = run("describe", mine.path, "--out", tmp_path / "none", *flag)
        assert result.exit_code == 2 and "go with --from wikipedia" in result.stderr


def test_bad_arguments(wiki: Wiki, tmp_path: Path) -> None:
    mine = recipe(tmp_path, titled("Car"))
    for contact in ("me\r\nX-Evil: 1", ""):
        with pytest.raises(UsageError, match="contact"):
            refresh(wiki, [mine], tmp_path / "out", contact=contact)
    for language in ("", "d", "evil.example.org/", "DE"):
        with pytest.raises(UsageError, match="not the code of a Wikipedia"):
            refresh(wiki, [mine], tmp_path / "out", language=language)
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
        ("The area x 2 {\\displaystyle x^{2}} is a square.", "The area x 2 is a square."),
        ("A so\u00adfa\ufeff &amp; bed.", "A sofa & bed."),
        ("猫（ねこ）は動物。", "猫は動物。"),
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


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("猫は動物である。小さい。", "猫は動物である。"),
        ("Ein Pkw bzw. Auto fährt z. B. auf Straßen. Örtlich rollt es.", "Ein Pkw bzw. Auto fährt z. B. auf Straßen."),
        ("Дом — это здание. Он стоит.", "Дом — это здание."),
        ("It is ca. 3 m long, i.e. short, etc. and so on. Then.", "It is ca. 3 m long, i.e. short, etc. and so on."),
    ],
)
def test_where_a_sentence_ends(text: str, first: str) -> None:
    assert opening(text, lambda part: len(part) <= len(first)) == first
