"""A merge page in a real browser, and what tests do with it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.merge.report import merge_report
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.plot.merge_page import content
from labelmerge.plot.merge_page.page import write_merge_page

from .browser import Tab, browser_tab

DESKTOP, PHONE = (1400, 900), (400, 800)
THINGS = 400
CROPPED = (("fine", 0), ("coarse", 0), ("coarse", 2), ("coarse", 3))


def webp() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (96, 96), "red").save(out, "webp")
    return out.getvalue()


CROP = webp()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def page(pages: Path, angle_bank: Callable[..., Bank], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three datasets: street and road are one class, person contains rider, mouse is two things, the rest is many."""
    out = pages / "merge.html"
    if out.exists():
        return out
    labels: dict[tuple[str, int], tuple[str, str, tuple[str, ...], str]] = {
        ("fine", 0): ("road", "A road is for cars.", ("road",), ""),
        ("fine", 1): ("person", "A person is on foot.", ("person",), ""),
        ("fine", 2): ("rider", "A rider is a person on a bicycle.", ("rider",), ""),
        ("fine", 3): ("mouse", "A mouse is an animal with a long tail, " + "grey or brown, " * 8, ("mouse",), ""),
        ("coarse", 0): ("street", "A street is for cars.", ("road",), ""),
        ("coarse", 1): ("person", "A person is a human being.", ("person", "rider"), ""),
        ("coarse", 2): ("mouse", "A mouse is a device with buttons, " + "on a desk, " * 8, ("computer mouse",), ""),
        ("coarse", 3): ("bat", "A bat.", ("bat",), "the name may also mean: club"),
    }
    for number in range(THINGS):
        what = (f"thing {number}", f"Thing {number} is for tests.", (f"thing {number}",), "")
        labels["fine", 10 + number] = labels["many", number] = what
    bank = angle_bank(
        {key: (name, text, 0.11 * place) for place, (key, (name, text, _, _)) in enumerate(labels.items())}
    )
    taxonomy = Taxonomy(
        Entry(key, name, concepts, "text" if note else "curated", 0.3 if note else 1.0, note)
        for key, (name, _, concepts, note) in labels.items()
    )
    rng = np.random.default_rng(0)
    monkeypatch.setattr(content, "flat_map", lambda vectors, seed: rng.random((len(vectors), 2)))
    write_merge_page(merge_report(bank, taxonomy), taxonomy, bank, out, crops={key: CROP for key in CROPPED})
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, page: Path) -> Iterator[Tab]:
    """The page on a desktop; at the end it has thrown nothing and asked for nothing."""
    browser.errors.clear()
    browser.open(page, DESKTOP)
    yield browser
    assert browser.errors == []
    assert browser.run("performance.getEntriesByType('resource').length") == 0


def texts(tab: Tab, selector: str) -> list[str]:
    found: list[str] = tab.run(f"[...document.querySelectorAll({selector!r})].map(each => each.textContent.trim())")
    return found


def go(tab: Tab, section: str) -> None:
    tab.run(f"location.hash = '', location.hash = {section!r}")


def click(tab: Tab, selector: str) -> None:
    tab.run(f"document.querySelector({selector!r}).click()")


def search(tab: Tab, words: str) -> None:
    tab.run("document.getElementById('search').value = '', document.activeElement.blur()")
    tab.press("/", *words)
    tab.until(f"document.getElementById('search').value === {words!r} && !document.getElementById('results').hidden")


CHOSEN = "document.querySelector('#about h3')?.textContent"


def shown_whole(tab: Tab, selector: str) -> bool:
    """Whether no box's text is wider than its box, nor its box than the list it is in."""
    cut: list[Any] = tab.run(
        f"[...document.querySelectorAll({selector!r})].filter(each => {{"
        " const [a, b] = [each, each.closest('.scroll')].map(box => box.getBoundingClientRect());"
        " return each.scrollWidth > each.clientWidth + 1 || a.right > b.right + 1; }).map(each => each.textContent)"
    )
    assert cut == []
    return True


INK = """(id => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
})"""
