"""XML as annotation tools write it: no document type, no entities of its own, nothing that grows while it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from labelmerge.errors import LayoutError, SampleError
from labelmerge.sharding.pictures.images import read_file

_MAX_BYTES = 1 << 26  # of a file of one image
_CHUNK = 1 << 20
_MAX_DEPTH = 50


class _Plain(TreeBuilder):
    """Builds elements, and refuses what could make a small file large."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a document type, which annotations don't need")

    def start(self, tag: str, attributes: dict[Any, Any], /) -> Element:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def read_xml(path: Path) -> Element:
    """The root element of a file of one image. Raises SampleError, which says in which line."""
    data = read_file(path)
    if len(data) > _MAX_BYTES:
        raise SampleError(f"has more than {_MAX_BYTES} bytes", where=path)
    parser = XMLParser(target=_Plain())
    try:
        parser.feed(data)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise SampleError(f"is not XML ({error})", where=path) from error
    return root


class _Streamed(_Plain):
    """As above; hands over each element of one name below the root when it is complete, and forgets it."""

    def __init__(self, *tags: str) -> None:
        super().__init__()
        self._tags = tags
        self._root: Element | None = None
        self.root_tag = ""
        self.complete: list[Element] = []

    def start(self, tag: str, attributes: dict[Any, Any], /) -> Element:
        element = super().start(tag, attributes)
        if self._depth == 1:
            self._root, self.root_tag = element, tag
        return element

    def end(self, tag: str, /) -> Element:
        element = super().end(tag)
        if self._depth == 1 and self._root is not None:
            if tag in self._tags:
                self.complete.append(element)
            self._root.clear()
        return element


def stream_xml(path: Path, root: str, *tags: str) -> Iterator[Element]:
    """The elements of some names right below the root of a file of any size, in its order.

    Raises LayoutError where it is no XML, or has another root; it says in which line.
    """
    builder = _Streamed(*tags)
    parser = XMLParser(target=builder)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                parser.feed(chunk)
                if builder.root_tag not in ("", root):
                    raise LayoutError(f"is not the XML of <{root}>, but of <{builder.root_tag[:40]}>", where=path)
                yield from builder.complete
                builder.complete.clear()
            parser.close()
        yield from builder.complete
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (ParseError, ValueError, LookupError) as error:
        raise LayoutError(f"is not valid XML ({error})", where=path) from error


def text_of(element: Element, tag: str) -> str | None:
    """The text of a child, without outer blanks; None where there is no such child, or nothing in it."""
    return (element.findtext(tag) or "").strip() or None
