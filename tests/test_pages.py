"""Scripts, style sheets and templates joined into one page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jinja2
import pytest

from labelmerge.pages import joined_script, joined_styles, render_page

MODULES = {
    "main.js": """import "./effect.js";
import {
  add,
  word as said,
} from "./tools.js";

const word = "own";
log(said, add(1, 2), word);
""",
    "tools.js": """import { log2 as log } from "./effect.js";

export const word = "exported";
export function add(a, b) {
  log(word);
  return a + b;
}
""",
    "effect.js": """export class Sink {}
export const log2 = text => text;
""",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package on disk; its name."""
    name = f"page_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for file, text in MODULES.items():
        (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_modules_run_once_each_after_those_that_they_import(package: str) -> None:
    script = joined_script(package)
    assert re.findall(r"^modules\['([\w.]+)'\] = ", script, re.MULTILINE) == ["effect.js", "tools.js", "main.js"]
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert "const {\n  add,\n  word: said,\n} = modules['tools.js'];" in script
    assert "const { log2: log } = modules['effect.js'];" in script
    assert "return { Sink, log2 };" in script and "return { word, add };" in script and "return {  };" in script
    assert script == joined_script(package)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('import { add } from "./main.js";\n', "circle: main.js → effect.js → main.js"),
        ('import tools from "./tools.js";\n', "effect.js: 'import tools from"),
        ("export default 3;\n", "effect.js: 'export default 3;'"),
        ("export let count = 0;\n", "effect.js: 'export let count"),
    ],
)
def test_what_can_t_be_joined_is_refused(package: str, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / package / "effect.js").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        joined_script(package)


def test_styles_keep_their_order_and_templates_escape(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "a.css").write_text("a { top: 0 }\n")
    (tmp_path / package / "b.css").write_text("b { top: 0 }\n")
    assert joined_styles(package, ["b.css", "a.css"]) == "b { top: 0 }\n\na { top: 0 }\n"
    (tmp_path / package / "x.html.j2").write_text("{{ text | twice }} {{ text }}")
    page = render_page(package, "x.html.j2", {"text": "<b>"}, {"twice": lambda text: text * 2})
    assert page == "&lt;b&gt;&lt;b&gt; &lt;b&gt;"
    with pytest.raises(jinja2.UndefinedError):
        render_page(package, "x.html.j2", {}, {"twice": lambda text: text * 2})
