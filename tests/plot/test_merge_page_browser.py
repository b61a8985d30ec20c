"""The merge page in a real browser: on a desktop, on a phone, in the dark, and by keyboard alone."""

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


def test_only_rows_near_the_seen_ones_are_built(tab: Tab) -> None:
    go(tab, "labels")
    tab.until("document.querySelectorAll('#table tr[data-pick]').length")
    count = 2 * THINGS + 8
    assert tab.run("document.getElementById('labels-count').textContent") == str(count)
    assert tab.run("document.getElementsByTagName('*').length") < 2500
    assert tab.run("document.querySelectorAll('#table tr[data-pick]').length") < 100
    box = "document.getElementById('labels-list')"
    # Whatever is scrolled to is built, in order and without gaps.
    for share in (0.5, 1, 0.25, 0.3, 0):
        tab.run(f"{box}.scrollTop = {share} * {box}.scrollHeight")
        tab.until(
            f"[...document.querySelectorAll('#table tr[data-pick]')].some(row => {{"
            f" const [a, b] = [row.getBoundingClientRect(), {box}.getBoundingClientRect()];"
            f" return a.bottom > b.top + 60 && a.top < b.bottom; }})"
        )
        places = tab.run("[...document.querySelectorAll('#table tr[data-pick]')].map(row => +row.ariaRowIndex)")
        assert places == list(range(places[0], places[0] + len(places))) and len(places) < 120
    assert places[0] == 1
    tab.run("document.querySelector('#table tr[data-pick]').focus()")
    tab.press("End")
    assert tab.run("+document.activeElement.ariaRowIndex") == count
    tab.press("ArrowUp")
    assert tab.run("+document.activeElement.ariaRowIndex") == count - 1
    tab.press("Home")
    assert tab.run("+document.activeElement.ariaRowIndex") == 1


def test_search_offers_labels_and_enter_chooses(tab: Tab) -> None:
    search(tab, "mouse")
    assert texts(tab, "#results [role=option]") == ["mouse coarse", "mouse fine"]
    assert texts(tab, "#found") == [f"2 of {2 * THINGS + 8} labels"]
    tab.press("ArrowDown", "ArrowDown")
    active = "document.getElementById(document.getElementById('search').getAttribute('aria-activedescendant'))"
    assert tab.run(f"{active}.textContent") == "mouse fine"
    tab.press("Enter")
    assert tab.run(CHOSEN) == "mouse" and "fine, index 3" in texts(tab, "#about-body")[0]
    assert tab.run("document.getElementById('results').hidden")
    go(tab, "check")
    tab.until("document.querySelectorAll('#same-name tr.pair').length === 1")
    assert texts(tab, "#other-name tr.pair") == []
    click(tab, "#clear")
    search(tab, "nothing of the kind")
    assert texts(tab, "#results li") == ["No label is called so."]
    tab.press("Enter", "Escape")
    assert tab.run("document.getElementById('results').hidden")
    assert tab.run(CHOSEN) == "mouse"


def test_the_head_says_what_was_merged_and_what_to_check(tab: Tab) -> None:
    lead = " ".join(texts(tab, "header p")[0].split())
    assert f"{2 * THINGS + 8} labels of 3 datasets become {THINGS + 7} classes" in lead
    assert texts(tab, ".example") == ["road = street"] or texts(tab, ".example") == ["street = road"]
    assert "curated: 807 labels; text: 1 label" in texts(tab, ".basis")[0]
    tiles = dict(zip(texts(tab, ".tiles dt"), texts(tab, ".tiles dd"), strict=True))
    assert tiles["unsure labels"] == "1" and tiles["pairs: two names, one meaning"] == "1"
    click(tab, ".tiles a[href='#other-name-title']")
    tab.until("document.querySelectorAll('#other-name tr.pair').length")
    assert 0 < tab.run("document.getElementById('other-name-title').getBoundingClientRect().top") < 400
    click(tab, ".example")
    assert tab.run(CHOSEN) == "street"


def test_a_label_has_an_address_and_the_back_button_works(tab: Tab, page: Path) -> None:
    search(tab, "coarse person")
    tab.press("Enter")
    tab.until(f"{CHOSEN} === 'person'")
    assert tab.run("location.hash") == "#label=coarse:1"
    click(tab, "nav a[href='#check']")
    tab.until("location.hash === '#check' && history.state")
    assert tab.run(CHOSEN) == "person"  # a link within the page chooses nothing
    click(tab, "#clear")
    tab.until("document.querySelectorAll('#other-name .chip').length")
    click(tab, "#other-name .chip")
    tab.until(f"{CHOSEN} === 'street' && location.hash === '#label=coarse:0'")
    tab.run("history.back()")
    tab.until(f"{CHOSEN} === 'person' && location.hash === '#check'")
    tab.run("history.go(-2)")
    tab.until("document.getElementById('about').className === 'idle' && location.hash === ''")
    tab.run("history.forward()")
    tab.until(f"{CHOSEN} === 'person'")
    # On the map, steps on the way to a label are not remembered.
    before = tab.run("history.length")
    tab.run("document.getElementById('map-canvas').focus()")
    tab.press("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp")
    assert tab.run("history.length") <= before
    for hash_, chosen in (("label=coarse:3", "bat"), ("label=coarse:99", None), ("label=%", None)):
        tab.run("history.replaceState(null, '', '#')")
        tab.send("Page.navigate", url="about:blank")
        tab.send("Page.navigate", url=f"{page.as_uri()}#{hash_}")
        tab.until("document.readyState === 'complete' && document.getElementById('found')?.textContent")
        assert tab.run(CHOSEN) == chosen


def test_labels_of_one_name_are_written_once(tab: Tab) -> None:
    search(tab, "thing 399")
    go(tab, "classes")
    tab.until("document.querySelectorAll('#classes-list .same').length")
    assert texts(tab, "#classes-list .same b")[0] == "thing 399"
    assert texts(tab, "#classes-list .same:first-child .chip") == ["fine", "many"]
    names = tab.run("[...document.querySelectorAll('#classes-list .same:first-child .chip')].map(b => b.ariaLabel)")
    assert names == ["thing 399, fine", "thing 399, many"]


def test_the_bar_is_low_and_shows_its_switches_to_who_steps_to_them(tab: Tab) -> None:
    go(tab, "contains")
    seen = "Math.round(document.querySelector('.bar').getBoundingClientRect().bottom)"
    tab.until(f"scrollY > 500 && {seen} < 120")
    assert tab.run("document.getElementById('search').getBoundingClientRect().top") >= 4
    assert texts(tab, "#shown-datasets") == ["all 3"]
    click(tab, "#to-switches")
    tab.press("ArrowRight", " ")
    tab.until("document.querySelector('.switches').getBoundingClientRect().top >= 0")
    assert tab.run("scrollY") > 500
    assert texts(tab, "#shown-datasets") == ["2 of 3"]


def test_the_chosen_label_tells_its_concepts_its_class_and_what_contains_what(tab: Tab) -> None:
    search(tab, "coarse person")
    tab.press("Enter")
    body = texts(tab, "#about-body")[0]
    assert "Stands for 2 concepts" in body and "person; rider" in body and "curated 1.00" in body
    assert "A class of its own" in body and "ContainsPerson" not in body
    heads = texts(tab, "#about h4")
    assert heads.index("Contains") < heads.index("Lies within")
    inside = texts(tab, "#about h4 + .rove .chip")
    assert {"person fine", "rider fine"} <= set(inside)
    click(tab, "#clear")
    search(tab, "rider")
    tab.press("Enter")
    assert "person coarse" in texts(tab, "#about h4 + .rove .chip")
    click(tab, "#clear")
    search(tab, "bat")
    tab.press("Enter")
    assert texts(tab, "#about .warning") == ["the name may also mean: club"] and "text 0.30" in texts(tab, "#about")[0]


def test_crops_stand_beside_the_chosen_label_and_what_is_to_check(tab: Tab) -> None:
    search(tab, "road")
    tab.press("Enter")
    tab.until(f"{CHOSEN} === 'road'")
    assert tab.run("[...document.querySelectorAll('#about img')].map(each => each.alt)") == [
        "Images of road, fine",
        "Images of street, coarse",
    ]
    tab.until("[...document.querySelectorAll('#about img')].every(each => each.naturalWidth === 96)")
    click(tab, "#clear")
    go(tab, "check")
    tab.until("document.querySelectorAll('#unsure img').length === 1")
    for list_, seen in (("unsure", ["bat"]), ("other-name", ["road", "street"]), ("same-name", ["mouse"])):
        alts = tab.run(f"[...document.querySelectorAll('#{list_} img')].map(each => each.alt.split(/[ ,]+/)[2])")
        assert set(seen) <= set(alts)


def test_lists_say_what_they_found(tab: Tab) -> None:
    go(tab, "classes")
    tab.until("document.querySelectorAll('#classes-list tr:not(.gap)').length > 1")
    search(tab, "street")
    tab.until("document.querySelectorAll('#classes-list tbody tr:not(.gap)').length === 1")
    assert texts(tab, "#classes-list tbody .chip") == ["street coarse", "road fine"]
    click(tab, "#clear")
    go(tab, "contains")
    tab.until("document.querySelectorAll('#contains-list tbody tr:not(.gap)').length === 1")
    assert texts(tab, "#contains-list tbody .chip") == ["person coarse", "rider fine", "person fine"]  # nearest first
    assert texts(tab, "#contains-list .grounds") == ["curated 1.00", "curated 1.00"]
    go(tab, "check")
    tab.until("document.querySelectorAll('#same-name tr.pair').length === 2")
    assert texts(tab, "#unsure tr.pair .chip")[0] == "bat coarse"
    assert "club" in texts(tab, "#unsure tr.pair")[0]
    assert sorted(texts(tab, "#same-name .relation")) == ["contains", "unrelated"]
    assert texts(tab, "#other-name tr.pair .chip") == ["street coarse", "road fine"]
    advice = texts(tab, "#check > p")[0]
    assert "labelmerge train --taxonomy taxonomy.csv" in advice and "--merge" not in advice


def test_datasets_are_switched_and_columns_sorted(tab: Tab) -> None:
    go(tab, "labels")
    tab.until("document.querySelectorAll('#table tr[data-pick]').length")
    click(tab, "[data-sort=name]")
    assert texts(tab, "#table tr[data-pick] th")[0].startswith("bat")
    click(tab, "[data-sort=evidence]")
    assert texts(tab, "#table tr[data-pick] .grounds")[:2] == ["text 0.30", "curated 1.00"]
    click(tab, ".switch[data-dataset='2']")  # many
    click(tab, ".switch[data-dataset='1']")  # fine
    assert texts(tab, "#found") == [f"4 of {2 * THINGS + 8} labels"]
    assert len(texts(tab, "#table tr[data-pick]")) == 4
    click(tab, "#all-datasets")
    click(tab, "td[data-solo='0 1']")
    pressed = tab.run("[...document.querySelectorAll('.switch[aria-pressed=true]')].map(b => b.dataset.dataset)")
    assert pressed == ["0", "1"]


def test_headings_lie_below_the_bar_and_nothing_is_cut_off(tab: Tab) -> None:
    for name in ("map", "similarity", "labels", "classes", "contains", "check"):
        go(tab, name)
        tab.until(f"Math.abs(document.getElementById('{name}-title').getBoundingClientRect().top) < 400")
        top = tab.run(f"document.getElementById('{name}-title').getBoundingClientRect().top")
        assert top >= tab.run("document.querySelector('.bar').getBoundingClientRect().bottom")
    tab.until("document.querySelectorAll('#same-name tr.pair').length")
    assert shown_whole(tab, "#same-name .chip, #same-name .sense, #labels-list .sense")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def shown_whole(tab: Tab, selector: str) -> bool:
    """Whether no box's text is wider than its box, nor its box than the list it is in."""
    cut: list[Any] = tab.run(
        f"[...document.querySelectorAll({selector!r})].filter(each => {{"
        " const [a, b] = [each, each.closest('.scroll')].map(box => box.getBoundingClientRect());"
        " return each.scrollWidth > each.clientWidth + 1 || a.right > b.right + 1; }).map(each => each.textContent)"
    )
    assert cut == []
    return True


def test_names_of_any_script_and_length_fit(
    tab: Tab, page: Path, angle_bank: Callable[..., Bank], tmp_path: Path
) -> None:
    names = [
        "<b>bold</b>",
        "سيارة",
        "汽车",
        "🚗 car",
        "an_endless_name" * 20,
        "many words " * 40,
        "<img src=x onerror=f()>",
    ]
    bank = angle_bank({("mine", n): (name, f"<i>Text</i> {n}.", 20.0 * n) for n, name in enumerate(names)})
    taxonomy = Taxonomy(Entry(key, name, (name,)) for key, name in zip(bank.keys, bank.names, strict=True))
    write_merge_page(merge_report(bank, taxonomy), taxonomy, bank, tmp_path / "odd.html")
    for size in (DESKTOP, PHONE):
        tab.open(tmp_path / "odd.html", size)
        go(tab, "labels")
        tab.until(f"document.querySelectorAll('#table tr[data-pick]').length === {len(names)}")
        assert texts(tab, "#table th[scope=row] span") == [name.strip() for name in names]
        assert tab.run("document.querySelectorAll('#labels img, #labels th b, #labels i:not(.mark)').length") == 0
        wide = "(each => each.scrollWidth <= each.clientWidth)(document.getElementById('labels-list'))"
        assert tab.run(wide) and tab.run("document.documentElement.scrollWidth <= innerWidth")
        click(tab, "#table tr[data-pick]:nth-child(3)")
        assert tab.run(CHOSEN) == "سيارة"
        assert tab.run("getComputedStyle(document.querySelector('#about h3 span')).direction") == "rtl"


def test_on_paper_stand_all_rows_and_both_pictures(tab: Tab) -> None:
    tab.send("Emulation.setEmulatedMedia", media="print")
    tab.run("dispatchEvent(new Event('beforeprint'))")
    tab.until(f"{INK}('heat-canvas') > 20")
    assert tab.run("document.querySelectorAll('#table tr[data-pick]').length") == 2 * THINGS + 8
    cut = "[...document.querySelectorAll('.scroll')].filter(each => each.scrollHeight > each.clientHeight + 1).length"
    assert tab.run(cut) == 0
    tab.run("dispatchEvent(new Event('afterprint'))")
    tab.send("Emulation.setEmulatedMedia", media="")


def test_what_is_pressed_and_read_has_a_name(tab: Tab) -> None:
    go(tab, "datasets")
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "checkbox", "combobox", "image", "table", "region", "application", "summary")
    found = [(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node and not node["ignored"]]
    named = [(role, name) for role, name in found if role in roles]
    assert len(named) > 60 and all(name for _, name in named)
    assert ("link", "1 pairs: two names, one meaning") in named  # a number alone says nothing


def test_a_phone_shows_both_names_and_no_empty_box(tab: Tab, page: Path) -> None:
    tab.open(page, PHONE)
    assert tab.run("[innerWidth, document.documentElement.scrollWidth]") == [400, 400]
    assert tab.run("getComputedStyle(document.getElementById('about')).position") == "static"
    tab.run("document.getElementById('other-name').scrollIntoView()")
    tab.until("document.querySelectorAll('#other-name tr.pair .chip').length === 2")
    assert shown_whole(tab, "#other-name .chip, #same-name .chip, #unsure .chip")
    boxes = tab.run("[...document.querySelectorAll('#other-name .chip')].map(chip => chip.offsetHeight > 10)")
    assert boxes == [True, True]
    click(tab, "#other-name .chip")
    assert tab.run(CHOSEN) == "street"
    box = tab.run("(({ top, bottom }) => [top, bottom])(document.getElementById('about').getBoundingClientRect())")
    assert box[1] == 800 and box[0] > 400  # a sheet at the bottom, while something is chosen
    click(tab, "#let-go")
    assert tab.run("getComputedStyle(document.getElementById('about')).position") == "static"


def test_a_dark_system_gets_a_dark_page(tab: Tab, page: Path) -> None:
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b)"
    assert tab.run(brightness) > 600
    tab.open(page, DESKTOP, "dark")
    assert int(tab.run(brightness)) < 150
    click(tab, "#theme")
    assert texts(tab, "#theme") == ["◐ light"] and tab.run(brightness) > 600


INK = """(id => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
})"""


def test_pictures_stay_filled_however_far_one_zooms(tab: Tab) -> None:
    tab.until(f"{INK}('map-canvas') > 20")
    for _ in range(14):
        click(tab, "[data-zoom='map:1.5']")
        assert tab.run(f"{INK}('map-canvas')") > 3
    go(tab, "similarity")
    tab.until(f"{INK}('heat-canvas') > 20")
    for _ in range(16):
        click(tab, "[data-zoom='heat:1.5']")
    assert tab.run(f"{INK}('heat-canvas')") > 3
    tab.run("document.getElementById('heat-canvas').focus()")
    tab.press("0", "ArrowDown", "ArrowRight")
    assert "×" in texts(tab, "#heat-readout")[0]
    # A picture without room is no error.
    tab.run("document.querySelector('.columns').hidden = true")
    tab.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
    click(tab, ".switch[data-dataset='0']")
    tab.run("document.querySelector('.columns').hidden = false")


def test_the_tab_key_stops_once_in_every_list(tab: Tab) -> None:
    for name in ("labels", "classes", "contains", "check", "datasets"):
        go(tab, name)
        tab.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
    stops = tab.run(
        "[...document.querySelectorAll('.rove')].map(list => [...list.querySelectorAll('[tabindex=\"0\"]')]"
        ".filter(item => item.closest('.rove') === list).length)"
    )
    assert max(stops) == 1
    tab.run("document.querySelector('.switch').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert tab.run("document.activeElement.dataset.dataset") == "1"
    tab.press("Tab")
    assert tab.run("document.activeElement.id") == "search"
    go(tab, "classes")
    tab.until("document.querySelectorAll('#classes-list .chip').length")
    tab.run("document.querySelector('#classes-list .chip').focus()")
    tab.press("ArrowDown", "Enter")
    assert tab.run(CHOSEN) == tab.run("document.activeElement.querySelector('b').textContent")
    tab.press("Escape")
    assert tab.run("document.getElementById('about').className") == "idle"
