"""The merge page on a desktop, on a phone, on paper, in the dark, by keyboard alone, and for screen readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.merge.report import merge_report
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.plot.merge_page.page import write_merge_page

from .browser import Tab
from .opened import CHOSEN, DESKTOP, INK, PHONE, THINGS, click, go, search, shown_whole, texts


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


def test_the_bar_is_low_and_shows_its_switches_to_who_steps_to_them(tab: Tab) -> None:
    go(tab, "contains")
    seen = "Math.round(document.querySelector('.bar').getBoundingClientRect().bottom)"
    tab.until(f"scrollY > 500 && {seen} < 120")
    assert tab.run("document.getElementById('search').getBoundingClientRect().top") >= 4
    assert texts(tab, "#shown-datasets") == ["all 3"]
    before = tab.run("scrollY")
    click(tab, "#to-switches")
    tab.press("ArrowRight")
    tab.until("document.querySelector('.switches').getBoundingClientRect().top >= 0")
    assert abs(tab.run("scrollY") - before) < 5
    tab.press(" ")
    tab.until("document.querySelector('.switches').getBoundingClientRect().top >= 0")
    assert tab.run("scrollY") > 500
    assert texts(tab, "#shown-datasets") == ["2 of 3"]


def test_headings_lie_below_the_bar_and_nothing_is_cut_off(tab: Tab) -> None:
    for name in ("map", "similarity", "labels", "classes", "contains", "check"):
        go(tab, name)
        tab.until(f"Math.abs(document.getElementById('{name}-title').getBoundingClientRect().top) < 400")
        top = tab.run(f"document.getElementById('{name}-title').getBoundingClientRect().top")
        assert top >= tab.run("document.querySelector('.bar').getBoundingClientRect().bottom")
    tab.until("document.querySelectorAll('#same-name tr.pair').length")
    assert shown_whole(tab, "#same-name .chip, #same-name .sense, #labels-list .sense")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


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
