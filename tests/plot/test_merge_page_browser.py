"""The merge page in a real browser: its lists, its search and its pictures."""

from __future__ import annotations

from .browser import Tab
from .opened import CHOSEN, INK, THINGS, click, go, search, texts


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


def test_labels_of_one_name_are_written_once(tab: Tab) -> None:
    search(tab, "thing 399")
    go(tab, "classes")
    tab.until("document.querySelectorAll('#classes-list .same').length")
    assert texts(tab, "#classes-list .same b")[0] == "thing 399"
    assert texts(tab, "#classes-list .same:first-child .chip") == ["fine", "many"]
    names = tab.run("[...document.querySelectorAll('#classes-list .same:first-child .chip')].map(b => b.ariaLabel)")
    assert names == ["thing 399, fine", "thing 399, many"]


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
