"""Orientation tags: what a file says of how its picture is to be turned, and the same file without saying it.

Masks and boxes are of the stored pixels. A reader of shards that turns a picture by its tag would turn it away from its
mask, so no tag goes into shards. Tags are found and taken out without decoding anything: in JPEGs (EXIF 2.32, 4.7.2:
segment APP1; XMP part 3, 1.1.3), in PNGs (PNG specification, eXIf; XMP in iTXt; ImageMagick's "Raw profile") and in
TIFFs (TIFF 6.0, tag 274). 1 is "as stored".
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from PIL import Image

AS_STORED = 1
_TAG = 274
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_PROFILES = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"Raw profile type xmp\0", b"XML:com.adobe.xmp\0")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(data: bytes, image: Image.Image) -> int:
    """What an image file says: 1 to 8; 1 where it says nothing, or nonsense."""
    if image.format not in ("JPEG", "MPO", "PNG", "TIFF"):  # those are decoded anyway
        found: object = AS_STORED
        with suppress(Exception):  # metadata of any kind of damage
            found = image.getexif().get(_TAG, AS_STORED)
        return found if isinstance(found, int) and found in _TURNS else AS_STORED
    if image.format == "TIFF":
        return _in_tiff(data)[1]
    parts = _jpeg_parts(data) if image.format in ("JPEG", "MPO") else _png_parts(data)
    for _, _, content in parts:
        if (said := _said(content)) != AS_STORED:
            return said
    return AS_STORED


def as_stored(data: bytes, image: Image.Image) -> bytes:
    """The same JPEG or PNG without the parts that may say how to turn it; nothing that is shown is among them."""
    if image.format == "JPEG":
        parts = _jpeg_parts(data)
    elif image.format == "PNG":
        parts = _png_parts(data)
    else:
        return data
    kept, place = [], 0
    for start, end, _ in parts:
        kept.append(data[place:start])
        place = end
    return b"".join((*kept, data[place:]))


def tiff_as_stored(data: bytes) -> bytes:
    """The same TIFF with 1 for its orientation: Pillow turns TIFFs while it decodes them. Other files as they are."""
    place, said = _in_tiff(data)
    if said == AS_STORED:
        return data
    order = "<" if data[:2] == b"II" else ">"
    return data[:place] + struct.pack(order + "H", AS_STORED) + data[place + 2 :]


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as viewers show it (EXIF 2.32, 4.6.4)."""
    return image if orientation == AS_STORED else image.transpose(_TURNS[orientation])


def _in_tiff(block: bytes) -> tuple[int, int]:
    """Where in a TIFF, or a block of EXIF, the orientation's value is, and the value; (0, 1) where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return 0, AS_STORED
        (magic,) = struct.unpack_from(order + "H", block, 2)
        if magic == 42:
            (place,) = struct.unpack_from(order + "I", block, 4)
            (count,), first, size, value = struct.unpack_from(order + "H", block, place), place + 2, 12, 8
        elif magic == 43:  # BigTIFF
            (place,) = struct.unpack_from(order + "Q", block, 8)
            (count,), first, size, value = struct.unpack_from(order + "Q", block, place), place + 8, 20, 12
        else:
            return 0, AS_STORED
        for entry in range(first, first + min(count, 65535) * size, size):
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            if tag == _TAG:
                where = entry + value + (2 if kind == 4 and order == ">" else 0)  # a LONG instead of a SHORT
                (said,) = struct.unpack_from(order + "H", block, where)
                return where, said if said in _TURNS else AS_STORED
    except struct.error:
        pass
    return 0, AS_STORED


def _jpeg_parts(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The segments APP1 of a JPEG: where each begins and ends, and what it holds."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:
            place += 2
        elif marker in (0xDA, 0xD9):
            return
        else:
            end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
            content = data[place + 4 : end]
            if marker == 0xE1 and content.startswith((_EXIF, _XMP)):
                yield place, end, content
            place = end


def _png_parts(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The chunks of a PNG that may hold EXIF or XMP: where each begins and ends, and what it holds."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : end - 4]
        if kind == b"eXIf":
            yield place, end, _EXIF + content.removeprefix(_EXIF)
        elif kind in _TEXTS and content.startswith(_PROFILES):
            yield place, end, content
        place = end


def _said(content: bytes) -> int:
    if content.startswith(_EXIF):
        return _in_tiff(content[len(_EXIF) :])[1]
    if content.startswith(_PROFILES[:2]):
        return _in_profile(content)
    found = _IN_XMP.search(_unpacked(content))
    return int(found[1]) if found else AS_STORED


def _unpacked(content: bytes) -> bytes:
    """The text of an iTXt chunk of XMP, which may be compressed (PNG specification, 11.3.4.5); others as they are."""
    keyword, _, rest = content.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and rest[:1] == b"\1":
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(rest[2:].split(b"\0", 2)[-1], 1 << 24)
    return content


def _in_profile(content: bytes) -> int:
    """ImageMagick's way to keep EXIF in a PNG: a name, a length and hexadecimal digits; zTXt has them compressed."""
    text = content.partition(b"\0")[2]
    if text[:1] == b"\0":
        try:
            text = zlib.decompressobj().decompress(text[1:], 1 << 20)
        except zlib.error:
            return AS_STORED
    digits = b"".join(text.split(b"\n")[3:])
    try:
        block = bytes.fromhex(digits.decode("ascii", "replace"))
    except ValueError:
        return AS_STORED
    return _in_tiff(block.removeprefix(_EXIF))[1]
