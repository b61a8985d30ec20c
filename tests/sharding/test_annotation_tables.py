"""Reading JSON and CSV as streams, against json.loads."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelmerge.errors import LayoutError
from labelmerge.sharding.readers.shared import tables
from labelmerge.sharding.readers.shared.tables import Groups, NameById, Rows, csv_rows, entries, loading, read_lists

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner), max_leaves=6
)
documents = st.dictionaries(
    st.sampled_from(["images", "annotations", "info", 'an "odd" key\\', "ø"]), st.lists(values, max_size=4) | values
)


def read(path: Path, *keys: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {key: [] for key in keys}
    read_lists(path, {key: found[key].append for key in keys})
    return found


@settings(max_examples=60, deadline=None)
@given(
    document=documents,
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    mark=st.sampled_from(["utf-8", "utf-8-sig"]),
)
# A number cut before its exponent is a number, too.
@example(document={"images": [3.5e16], "annotations": [1]}, chunk=1, indent=None, ascii_only=True, mark="utf-8")
def test_lists_are_what_json_loads_gives(
    document: dict[str, Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
    mark: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), encoding=mark)
    wanted = {key: document[key] for key in ("images", "annotations") if isinstance(document.get(key), list)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_CHUNK", chunk)
        if len(wanted) == 2 and all(wanted.values()):
            assert read(path, "images", "annotations") == wanted
        else:
            with pytest.raises(LayoutError, match="lists no (images|annotations)"):
                read(path, "images", "annotations")


DOCUMENT = '{"info": {"a": [1, 2.5, "x"]}, "images": [{"id": 1}, {"id": 2}], "n": -12}'


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_truncated_file_is_one_clear_error_wherever_it_ends(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    for end in range(len(DOCUMENT)):
        path.write_text(DOCUMENT[:end])
        with pytest.raises(LayoutError, match=r"is not valid JSON \(.*; after "):
            read(path, "images")
    path.write_text(DOCUMENT)
    assert read(path, "images") == {"images": [{"id": 1}, {"id": 2}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DOCUMENT + "}", "there is more after its end"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"images": [' + '{"a":' * 100_000, "is nested too deeply"),
        ('{"images": [1 2]}', "',' or ']' is missing; after images 1"),
        ('{"images": [1,]}', r"is not valid JSON \(.*; after images 1"),
        ('{"images" [1]}', "a key or a colon is missing"),
        ("{1: [1]}", "a key or a colon is missing"),
        ('{"images": [1], "images": []}', None),
        ('{"images": [' + "9" * 5000 + "]}", "is not valid JSON .Exceeds the limit"),
        ('{"images": ["' + "x" * 3000 + '"]}', "one of its values has more than 1000 characters"),
        ('{"images": {"id": 1}}', "lists no images"),
        ("3", "lists no images"),
    ],
)
def test_hostile_json(text: str, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "xxx" in text:
        monkeypatch.setattr(tables, "_CHUNK", 100)
        monkeypatch.setattr(tables, "_MAX_VALUE", 1000)
    path = tmp_path / "a.json"
    path.write_text(text)
    if message is None:
        assert read(path, "images") == {"images": [1]}
    else:
        with pytest.raises(LayoutError, match=message) as error:
            read(path, "images")
        assert len(str(error.value)) < 1000


def test_ids_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"

    def names(records: list[dict[str, Any]]) -> dict[int | str, str]:
        path.write_text(json.dumps({"categories": records}))
        found = NameById()
        read_lists(path, {"categories": found})
        return found.names

    assert names([{"id": 3.0, "name": "a"}, {"id": "4", "name": 7}, {"id": "03", "name": "b"}]) == {
        3: "a",
        4: "7",
        "03": "b",
    }
    assert names([{"id": 2**62 + 1, "name": "a"}, {"id": 2**70, "name": "b"}]) == {2**62 + 1: "a", str(2**70): "b"}
    odd: tuple[object, ...] = (None, [], 1.5, float("nan"), float("inf"), "\ud800")
    for number in odd:
        with pytest.raises(LayoutError, match="categories 1 is malformed"):
            names([{"id": number, "name": "a"}])
    with pytest.raises(LayoutError, match="categories 2 is malformed .its id 1 is not unique"):
        names([{"id": 1, "name": "a"}, {"id": True, "name": "b"}])
    monkeypatch.setattr(NameById, "_MAX", 3)
    with pytest.raises(LayoutError, match="categories 4 is malformed .there are more than 3"):
        names([{"id": number, "name": "a"} for number in range(1000)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(), st.text(max_size=3))), st.integers(1, 2000))
def test_groups_keep_the_order_of_each_key(added: list[tuple[int, int, str]], at_once: int) -> None:
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.MonkeyPatch.context() as patch, loading(scratch):
        patch.setattr(tables, "_BYTES_AT_ONCE", at_once)
        patch.setattr(tables, "_ROWS_AT_ONCE", 2)
        groups, rows = Groups(scratch, "groups"), Rows(scratch, "plain", ("key", "number", "text"))
        for key, *entry in added:
            groups.add(key, tuple(entry))
            rows.add(key, *map(str, entry))
        groups.close()
        rows.close()
    for key in range(4):
        found = scratch.execute("SELECT count, entries FROM groups WHERE key = ? ORDER BY rowid", (key,)).fetchall()
        assert [entry for _, data in found for entry in entries(data)] == [(n, t) for k, n, t in added if k == key]
        assert sum(count for count, _ in found) == sum(1 for k, _, _ in added if k == key)
    plain = scratch.execute("SELECT * FROM plain ORDER BY rowid").fetchall()
    assert plain == [(key, str(number), text) for key, number, text in added]
    scratch.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n" + "x" * (1 << 20), "a line has more than 1048576 characters; in row 2"),
        ("a,b\n" + "x" * 200_000 + ",2\n", "is not valid CSV .field larger than"),
        ("a,b\n1,2\n3\n", "row 2 has too few fields"),
        ("b\n1\n", "the header lacks a"),
        ("", "the header lacks a, b"),
        (b"a,b\n\xff,1\n", "is not valid CSV"),
    ],
)
def test_hostile_csv(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LayoutError, match=message):
        list(csv_rows(path, ("a", "b")))


def test_csv_columns_go_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffx,b,a\r\n1,"2\n,3",4\r\n\r\n5,6,7\r\n', encoding="utf-8")
    assert list(csv_rows(path, ("a", "b"))) == [("4", "2\n,3"), ("7", "6")]
    path.write_text("1,2\n3,4\n")
    assert list(csv_rows(path, ("a", "b"), defaults=("a", "b"))) == [("1", "2"), ("3", "4")]
