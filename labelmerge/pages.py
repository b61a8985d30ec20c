"""HTML pages that need nothing else: a template, style sheets and scripts of one package, joined into one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

_IMPORT = re.compile(r'^import (?:\{([^}]*)\} from )?"\./([\w.-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|function|class) (\w+))", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_RENAMED = re.compile(r"(\w+) as (\w+)")


def render_page(
    package: str, template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None
) -> str:
    """A package's Jinja template filled in; text in `values` is escaped, and an unknown name is an error.

    Args:
        package: for instance ``labelmerge.demo``.
        template: a file in its folder.
        values: what the template's names stand for.
        filters: more filters than Jinja has.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**values)


def joined_styles(package: str, names: Sequence[str]) -> str:
    """The package's style sheets, one after the other."""
    return "\n".join(_read(package, name) for name in names)


def joined_script(package: str, main: str = "main.js") -> str:
    """A package's ES modules as one script, since modules that are files can't be imported by a page that is one.

    Each module becomes a function that is called once and returns what it exports, after those that it imports. Of the
    language's forms of ``import`` and ``export`` the modules may use these, each at the start of a line::

        import { name, other as another } from "./module.js";
        import "./module.js";
        export const name …     export function name …     export class name …

    An exported ``const`` is what it was when its module had run.

    Args:
        package: for instance ``labelmerge.plot.merge_page``.
        main: the module that imports the others.

    Raises:
        ValueError: modules import each other in a circle, or in another form.
    """
    parts: dict[str, str] = {}

    def add(name: str, importers: tuple[str, ...]) -> None:
        if name in importers:
            raise ValueError(f"modules import each other in a circle: {' → '.join((*importers, name))}")
        if name in parts:
            return
        text = _read(package, name)
        for _, imported in _IMPORT.findall(text):
            add(imported, (*importers, name))
        exported = ", ".join(_EXPORT.findall(text))
        body = _EXPORT.sub("", _IMPORT.sub(_destructured, text))
        if left := _LEFT.search(body):
            raise ValueError(f"{name}: {left[0]!r} is a form of import or export that can't be joined")
        parts[name] = f"modules[{name!r}] = (() => {{\n{body}return {{ {exported} }};\n}})();\n"

    add(main, ())
    return "\n".join(['"use strict";\n(() => {\nconst modules = {};', *parts.values(), "})();\n"])


def _destructured(match: re.Match[str]) -> str:
    """An import as an assignment from the module that has run; nothing where no name is imported."""
    names, module = match.groups()
    if names is None:
        return ""
    names = _RENAMED.sub(r"\1: \2", names)
    return f"const {{{names}}} = modules[{module!r}];\n"


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
