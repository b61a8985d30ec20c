"""The descriptions CSV: what is read, and what is wrong with one, in one message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labelmerge.catalog import load_descriptions, load_label_space, load_recipe
from labelmerge.descriptions import Description, read_descriptions
from labelmerge.errors import DescriptionsError


def test_rows_come_by_index_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbfindex,name,description\r\n1,car,"Has\r\nwheels."\r\n0,road,\r\n')
    assert read_descriptions(file) == [Description(0, "road"), Description(1, "car", "Has\r\nwheels.")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_of_spreadsheets(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a.csv").write_text(
        f"index{separator}name{separator}description\n0{separator}road{separator}Grey, flat.\n"
    )
    assert read_descriptions(tmp_path / "a.csv") == [Description(0, "road", "Grey, flat.")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"index,name\n", "no rows"),
        (b"index name\n0 road\n", "unknown columns 'index name' .*the header lacks index and name"),
        (b"index,name,name\n0,a,b\n", "the header has name twice"),
        (b"index,name\n0,road\n0,car\n", "line 3: index 0 was already given on line 2"),
        (b"index,name\nx,road\n-1,car\n", "line 2: index 'x' is not a whole number.*line 3: index '-1'"),
        (b"index,name\n0, \n", "line 2: empty name"),
        (b"index,name\n0\n", "line 2: 1 field, not the 2 of the header"),
        (b"index,name\n0,road,grey\n", "line 2: 3 fields, not the 2 of the header .a text with commas needs quotes."),
        (b'index,name\n0,"road\n1,car\n', "line 3: unexpected end of data"),
        (b"index,name\n0,caf\xe9\n", "is not UTF-8 .byte 16.. Save the file as UTF-8"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DescriptionsError, match=message):
        read_descriptions(tmp_path / "a.csv")


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DescriptionsError, match="no such file"):
        read_descriptions(tmp_path / "a.csv")
    with pytest.raises(DescriptionsError, match="can't be read"):
        read_descriptions(tmp_path)
    recipe = replace(load_recipe("camvid"), descriptions=tmp_path / "a.csv")
    for load in (load_descriptions, load_label_space):
        with pytest.raises(DescriptionsError, match="no such file. The recipe of camvid names it"):
            load(recipe)
