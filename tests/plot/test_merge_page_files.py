"""The merge page's style sheets and scripts, as they lie in the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import tinycss2

from labelmerge.pages import joined_script
from labelmerge.plot.merge_page.page import STYLES

from .browser import browser_tab

PACKAGE = "labelmerge.plot.merge_page"
FOLDER = Path(str(files(PACKAGE)))


def rules(nodes: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Selector and declarations of every rule, those within @media too."""
    for node in nodes:
        assert node.type in ("qualified-rule", "at-rule"), node
        if node.type == "at-rule":
            assert node.at_keyword == "media"
            yield from rules(tinycss2.parse_rule_list(node.content, skip_comments=True, skip_whitespace=True))
        else:
            declarations = tinycss2.parse_blocks_contents(node.content, skip_comments=True, skip_whitespace=True)
            yield tinycss2.serialize(node.prelude).strip(), declarations


def sheet(name: str) -> list[tuple[str, list[Any]]]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return list(rules(tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True)))


def test_every_script_and_style_sheet_is_in_the_page() -> None:
    assert sorted(STYLES) == sorted(path.name for path in FOLDER.glob("*.css"))
    joined = re.findall(r"^modules\['([\w.]+)'\] = ", joined_script(PACKAGE), re.MULTILINE)
    assert sorted(joined) == sorted(path.name for path in FOLDER.glob("*.js"))


@pytest.mark.parametrize("name", [*STYLES, *sorted(path.name for path in FOLDER.glob("*.js"))])
def test_no_file_ends_the_element_that_holds_it(name: str) -> None:
    assert not re.search(r"</?(script|style)|<!--", (FOLDER / name).read_text(encoding="utf-8"), re.IGNORECASE)


@pytest.mark.parametrize("name", STYLES)
def test_style_sheets_are_well_formed(name: str) -> None:
    for selector, declarations in sheet(name):
        assert declarations, f"{selector}: an empty rule"
        names = [declaration.name for declaration in declarations if declaration.type == "declaration"]
        assert len(names) == len(declarations), f"{selector}: {declarations}"
        assert len(set(names)) == len(names), f"{selector}: a property stands there twice"


def test_a_browser_understands_every_declaration(tmp_path: Path) -> None:
    found = [
        [declaration.lower_name, tinycss2.serialize(declaration.value).strip()]
        for name in STYLES
        for _, declarations in sheet(name)
        for declaration in declarations
    ]
    pairs = json.dumps([*found, ["colour", "red"]])
    with browser_tab(tmp_path) as tab:
        unknown = tab.run(f"{pairs}.filter(([name, value]) => !CSS.supports(name, value))")
    assert unknown == [["colour", "red"]]


def test_style_sheets_name_only_what_exists() -> None:
    template = (FOLDER / "merge.html.j2").read_text(encoding="utf-8")
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js")))
    everything = [rule for name in STYLES for rule in sheet(name)]
    selectors = " ".join(selector for selector, _ in everything)
    for kind in re.findall(r"[.#]([a-z][\w-]*)", selectors):
        assert re.search(rf"\b{kind}\b", template + scripts), f"{kind}: nothing on the page is called so"
    declared = {d.name for _, declarations in everything for d in declarations if d.name.startswith("--")}
    declared |= set(re.findall(r"(--[a-z]+):", template))
    css = "".join((FOLDER / name).read_text(encoding="utf-8") for name in STYLES)
    assert set(re.findall(r"var\((--[a-z]+)\)", css)) <= declared
    assert set(re.findall(r'"(--[a-z]+)"', scripts)) <= declared


def test_scripts_look_for_what_exists() -> None:
    template = (FOLDER / "merge.html.j2").read_text(encoding="utf-8")
    for path in sorted(FOLDER.glob("*.js")):
        for wanted in re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8")):
            # A list's id is given to the macro that makes it.
            there = f'id="{wanted}"' in template or f'list("{wanted}"' in template
            assert there, f"{path.name}: no element has the id {wanted}"
