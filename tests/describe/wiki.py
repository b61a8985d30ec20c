"""A real HTTP server on the loopback interface that answers as the MediaWiki API does, faults included."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from labelmerge.catalog import Recipe, load_recipe
from labelmerge.describe import wikipedia
from labelmerge.describe.wikipedia import refresh_from_wikipedia
from labelmerge.descriptions import Description, write_descriptions

from ..loopback import QuietServer, served

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
    drip: float = 0.0  # seconds between bytes


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
            for start in range(0, len(answer.body), 1 if answer.drip else len(answer.body)):
                self.wfile.write(answer.body[start : start + 1] if answer.drip else answer.body)
                time.sleep(answer.drip)
            self.close_connection = answer.truncate

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def wiki(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wiki]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    wiki = Wiki()
    with served(QuietServer(("127.0.0.1", 0), handler(wiki))) as url:
        wiki.url = f"{url}/{{language}}/api.php"
        yield wiki


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
