"""A server that does harm, over a real connection: bounded in requests, bytes, time and hosts, and never believed."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from labelmerge.describe.wikipedia import clean, opening
from labelmerge.descriptions import read_descriptions
from labelmerge.errors import LabelmergeError

from .wiki import CAR, Answer, Wiki, recipe, refresh, titled, wiki

__all__ = ["wiki"]

URL = "https://en.wikipedia.org/wiki/Car"
PAGE = {"pageid": 7, "ns": 0, "title": "Car", "lastrevid": 1, "fullurl": URL, "extract": CAR}


def said(query: Any, **more: Any) -> Answer:
    return Answer(body=json.dumps({"query": query, **more}).encode())


def refused(wiki: Wiki, folder: Path, *answers: Answer, **settings: Any) -> str:
    wiki.faults["Car"] = list(answers)
    with pytest.raises(LabelmergeError) as caught:
        refresh(wiki, [recipe(folder, titled("Car"))], folder / "out", **settings)
    assert not (folder / "out" / "mine.csv").exists()
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()
    return str(caught.value)


def test_an_answer_that_never_ends(wiki: Wiki, tmp_path: Path) -> None:
    query = {"pages": {"7": PAGE}}
    same = [said(query, **{"continue": {"excontinue": "1"}}) for _ in range(50)]
    assert "never comes to the end" in refused(wiki, tmp_path, *same)
    assert len(wiki.requests) == 2
    wiki.requests.clear()
    others = [said(query, **{"continue": {"excontinue": str(number)}}) for number in range(1000)]
    assert "never comes to the end" in refused(wiki, tmp_path, *others)
    assert len(wiki.requests) <= 60
    wiki.requests.clear()
    assert "end" in refused(wiki, tmp_path, said(query, **{"continue": {"titles": "Other"}}), *same)
    assert wiki.asked() == ["Car"] * len(wiki.requests)  # what is asked for is not the server's to choose


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_of_many_bytes(packed: bool, wiki: Wiki, tmp_path: Path) -> None:
    body = b" " * (20 << 20)
    answer = Answer(body=gzip.compress(body), headers={"Content-Encoding": "gzip"}) if packed else Answer(body=body)
    assert len(answer.body) < 30_000 or not packed
    tracemalloc.start()
    try:
        assert "answered with more than 16 MB" in refused(wiki, tmp_path, answer)
        assert tracemalloc.get_traced_memory()[1] < 120 << 20
    finally:
        tracemalloc.stop()


def test_gzip_is_read(wiki: Wiki, tmp_path: Path) -> None:
    body = gzip.compress(json.dumps({"query": {"pages": {"7": PAGE}}}).encode())
    wiki.faults["Car"] = [Answer(body=body, headers={"Content-Encoding": "gzip"})]
    assert refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "out").refreshed == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(body=gzip.compress(b"{}" * 999)[:-9], headers={"Content-Encoding": "gzip"}), "damaged gzip"),
        (Answer(body=b"nothing", headers={"Content-Encoding": "gzip"}), "damaged gzip"),
        (Answer(body=b"nothing", headers={"Content-Encoding": "br"}), "packed as 'br', which was not asked for"),
        (Answer(body=b" " * 40, drip=0.05), "did not come to the end of an answer in time"),
        (Answer(302, headers={"Location": "http://127.0.0.2/"}), "redirects to another host (127.0.0.2)"),
        (Answer(302, headers={"Location": "file:///etc/passwd"}), "redirects to another host"),
        (Answer(302, headers={"Location": "http://[::1"}), "Invalid URL in location header"),
        (Answer(302, headers={"Location": "gopher://127.0.0.1/"}), "redirects to another host"),
        (Answer(302, headers={"Location": "//evil.example/\x7f"}), "Invalid URL in location header"),
        (Answer(429, headers={"Retry-After": "9" * 400}), "asks to come back in inf s"),
        (Answer(429, headers={"Retry-After": "Fri, 31 Dec 99999 23:59:59 GMT"}), "HTTP status 429"),
    ],
)  # fmt: skip
def test_answers_that_do_harm(answer: Answer, why: str, wiki: Wiki, tmp_path: Path) -> None:
    assert why in refused(wiki, tmp_path, answer, timeout=0.1, retries=0)


def test_redirects_on_the_same_host(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = CAR
    moved = Answer(301, headers={"Location": "/en/api.php?titles=Car&prop=extracts"})
    wiki.faults["Car"] = [moved]
    assert refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "out").refreshed == 1
    assert "redirects more than 3 times" in refused(wiki, tmp_path / "again", *[moved] * 9)


def page(**changes: Any) -> dict[str, Any]:
    return {"pages": {"7": {key: value for key, value in {**PAGE, **changes}.items() if value is not Ellipsis}}}


NONE: list[Any] = [3, {}, [3], [{}]]
MALFORMED: list[Any] = [
    *(None, [], "x", 3, {}, {"pages": []}, {"pages": {}}, {"pages": {"7": None}}, {"pages": {"7": []}}),
    *({"pages": {"x": PAGE}}, page(title=None), page(ns="0"), page(fullurl=...), page(lastrevid=...)),
    *(page(**{key: value}) for key in ("extract", "fullurl", "langlinks", "pageprops") for value in (3, [1])),
    *(page(lastrevid={}), page(fullurl="x" * 5000)),
    *({**page(), "normalized": wrong} for wrong in NONE),
    *({**page(), kind: wrong} for kind in ("redirects", "interwiki") for wrong in NONE[2:]),
    {**page(), "redirects": [{"from": "Car", "to": 3}]},
]


@pytest.mark.parametrize("query", MALFORMED)
def test_malformed_answers(query: Any, wiki: Wiki, tmp_path: Path) -> None:
    assert "did not answer as the MediaWiki API does" in refused(wiki, tmp_path, said(query))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 5000,
        b"\xff\xfe",
        b'{"query": 1e999}',
        b'{"query": "\\ud800"}',
        b"null",
        b"3",
        b'"x"',
    ],
)
def test_what_is_no_answer(body: bytes, wiki: Wiki, tmp_path: Path) -> None:
    refused(wiki, tmp_path, Answer(body=body))


@pytest.mark.parametrize("more", [3, [], "x", {"a": []}, {"a": {"b": 1}}])
def test_malformed_continuations(more: Any, wiki: Wiki, tmp_path: Path) -> None:
    assert "did not answer as" in refused(wiki, tmp_path, said({"pages": {"7": PAGE}}, **{"continue": more}))


def test_errors_are_shown_harmlessly(wiki: Wiki, tmp_path: Path) -> None:
    text = refused(wiki, tmp_path, Answer(body=json.dumps({"error": {"info": "\x1b[2J\u202e" + "x" * 9999}}).encode()))
    assert "\\x1b" in text


def test_control_characters_never_reach_a_file(wiki: Wiki, tmp_path: Path) -> None:
    lead = "A \x1b[31mcar\x07 is\x9b2J a \u202evehicle\u2069.\x00 It\u0085drives."
    wiki.faults["Car"] = [said({"pages": {"7": {**PAGE, "extract": lead}}})]
    refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "out")
    (row,) = read_descriptions(tmp_path / "out" / "mine.csv")
    assert row.description == "A [31mcar is2J a vehicle. It drives." and row.description.isprintable()
    for change in ({"fullurl": "https://x/\x1b"}, {"fullurl": "javascript:alert(1)"}):
        wiki.faults["Car"] = [said({"pages": {"7": {**PAGE, **change}}})]
        done = refresh(wiki, [recipe(tmp_path, titled("Car"))], tmp_path / "other", again=True)
        assert done.refreshed == 0 and done.kept[0].reason == "its title or address is none"


def test_texts_made_to_be_slow() -> None:
    """Work that grows with the square of a text's length would take hours of these."""
    before = time.process_time()
    for text in ("(" * 10**6 + ")" * 10**6, "/ə " * 10**6, "a. " * 10**6, "{\\displaystyle" * 10**5, "( " * 10**6):
        taken = opening(clean(text), lambda taken: len(taken) < 300)
        assert len(taken) < 300 or "." not in taken[:300], "more sentences than fit"
    assert time.process_time() - before < 10


def test_a_kept_answer_that_was_changed_is_asked_for_again(wiki: Wiki, tmp_path: Path) -> None:
    wiki.articles["Car"] = CAR
    mine, out = recipe(tmp_path, titled("Car")), tmp_path / "out"
    refresh(wiki, [mine], out)
    cache = out / ".wikipedia" / "en.json"
    for query in MALFORMED[4::6]:
        kept = {"Car": {"fetched": "2026-01-01", "query": query}}
        cache.write_text(json.dumps({"format": "labelmerge-wikipedia/1", "articles": kept}))
        assert refresh(wiki, [mine], out).refreshed == (query not in ({}, {"pages": {}}))
