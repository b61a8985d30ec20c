"""What Wikipedia, or the way to it, can do wrong."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from labelmerge.describe.wikipedia import refresh_from_wikipedia
from labelmerge.errors import LabelmergeError

from .wiki import CAR, Answer, Wiki, recipe, refresh, titled


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
