"""List all metadata of a file as a table: EXIF, XMP, IPTC, texts, and the small picture in them.

>>> read_metadata(b"no picture")
Metadata(entries=(), thumbnail=b'', tells_place=False)

Nothing in the table says where the picture was taken; `read_place` does, on request.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from real_vs_ai.core.images import DECODER_ERRORS, may_have_exif, readable_formats
from real_vs_ai.provenance.fields import exif_text, has_large_exif, read_fields, read_preview

_MOST_ENTRIES = 300
_LONGEST_VALUE = 1_000
_LONGEST_PACKET = 300_000
_DEEPEST = 6
_MOST_CHILDREN = 500
_THUMBNAIL_SIDE = 256
_GROUPS = ("EXIF", "IPTC")
# Binary data, and texts that hold other metadata whole.
_LEFT_OUT = re.compile(
    r"MakerNote|PrintImageMatching|ImageResources|ExifOffset|InterColorProfile|JPEGTables"
    r"|IPTCNAA|ApplicationNotes|StripOffsets|StripByteCounts|TileOffsets|TileByteCounts"
    r"|Raw profile type.*|XML:com\.adobe\.xmp|xmp|photoshop|exif",
    re.I,
)
_PLACE = re.compile(
    r"(?i:gps|latitude|longitude|altitude|location|countr|province|address|geotag|geohash)"
    r"|(?<![a-z])City(?![a-z])|^(?i:city|state|place)$|/(?:State|Place)$|^Coverage$"
)
# A text may hold other metadata, too: "exif:GPSLatitude=51,30N".
_PLACE_IN_TEXT = re.compile(r"gps[-_ ]?(?:latitude|longitude|position|coord)|\"latitude\"", re.I)
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LISTS = frozenset({f"{_RDF}{name}" for name in ("Alt", "Bag", "Seq")})
_NO_PROPERTIES = frozenset({f"{_RDF}about", f"{_RDF}parseType", f"{_RDF}ID"})


@dataclass(frozen=True)
class Entry:
    """One line of the table. Names and values come from the file: do not trust them.

    Attributes:
        group: "EXIF", "XMP", "IPTC" or "text" (of a PNG, or a comment).
        name: As the standard calls it: "DateTimeOriginal"; parts of a whole after a slash.
        value: Printable, at most 1,000 characters.
    """

    group: str
    name: str
    value: str


@dataclass(frozen=True)
class Metadata:
    """All metadata of a file but for the place.

    Attributes:
        entries: At most 300.
        thumbnail: The small picture that a camera or program left in the file, as a JPEG of at
            most 256 pixels, or b"". It may show what the picture was before an edit.
        tells_place: Whether `read_place` has something to tell.
    """

    entries: tuple[Entry, ...] = ()
    thumbnail: bytes = b""
    tells_place: bool = False


def read_metadata(data: bytes) -> Metadata:
    """The metadata of a file, read within limits of size and number."""
    entries, place = _split(data)
    return Metadata(entries, _read_thumbnail(data), bool(place or _read_position(data)))


def read_place(data: bytes) -> tuple[Entry, ...]:
    """Where the file says that the picture was taken: coordinates, and names of places."""
    return (*_read_position(data), *_split(data)[1])


def _split(data: bytes) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """The entries that do not tell the place, and those that do."""
    entries: list[Entry] = []
    place: list[Entry] = []
    for entry in itertools.islice(_entries(data), _MOST_ENTRIES):
        tells = _PLACE.search(entry.name) or _PLACE_IN_TEXT.search(entry.value)
        (place if tells else entries).append(entry)
    # The directory of the coordinates is read on its own; here stands a number only.
    return tuple(entries), tuple(one for one in place if one.name != "GPSInfo")


def _entries(data: bytes) -> Iterator[Entry]:
    for field, text in read_fields(data).items():
        group, _, name = field.partition(" ")
        one = Entry(group, name, text) if group in _GROUPS else Entry("text", field, text)
        for entry in _xmp_entries(text) if field == "XMP" else [one]:
            value = _printable(entry.value)
            if value and not _LEFT_OUT.fullmatch(entry.name):
                yield Entry(entry.group, _printable(entry.name), value)


def _printable(text: str) -> str:
    """The beginning of a hostile text on one line."""
    cut = text[:_LONGEST_VALUE]
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())


def _xmp_entries(packet: str) -> Iterator[Entry]:
    if len(packet) > _LONGEST_PACKET:
        return
    # Entities could make a small packet large, and no honest one declares any.
    if "<!" in packet.replace("<!--", "").replace("<![CDATA[", ""):
        return
    # The packet was cut out of the file before its last tag.
    end = "" if "</x:xmpmeta>" in packet else "</x:xmpmeta>"
    try:
        root = ElementTree.fromstring(packet + end)
    except (ElementTree.ParseError, *DECODER_ERRORS):
        return
    for description in itertools.islice(root.iter(f"{_RDF}Description"), _MOST_CHILDREN):
        yield from _properties(description, "", _DEEPEST)


def _properties(element: ElementTree.Element, path: str, depth: int) -> Iterator[Entry]:
    """The properties of an XMP description: its attributes and children."""
    for name, value in itertools.islice(element.items(), _MOST_CHILDREN):
        if name not in _NO_PROPERTIES:
            yield Entry("XMP", path + _local(name), value)
    for child in itertools.islice(element, _MOST_CHILDREN):
        name = path + _local(child.tag)
        if len(child) and child[0].tag in _LISTS:
            plain = [item.text or "" for item in child[0][:_MOST_CHILDREN] if not len(item)]
            yield Entry("XMP", name, ", ".join(filter(None, map(str.strip, plain))))
            wholes = [item for item in child[0][:_MOST_CHILDREN] if len(item) or item.keys()]
        else:
            yield Entry("XMP", name, child.text or "")
            wholes = [child]
        # The outermost descriptions are found without going down.
        for whole in wholes if depth else ():
            parts = whole[0] if len(whole) and whole[0].tag == f"{_RDF}Description" else whole
            yield from _properties(parts, f"{name}/", depth - 1)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _read_position(data: bytes) -> tuple[Entry, ...]:
    """What the EXIF data's directory of the place holds; a position in degrees comes first."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                if has_large_exif(image) or not may_have_exif(image, data):
                    return ()
                tags = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except DECODER_ERRORS:
        return ()
    named = {ExifTags.GPSTAGS.get(tag, ""): value for tag, value in tags.items()}
    texts = {name: _printable(exif_text(value, name)) for name, value in named.items() if name}
    entries = tuple(Entry("EXIF", name, text) for name, text in texts.items() if text)
    sides = [_degrees(named, name) for name in ("GPSLatitude", "GPSLongitude")]
    if None in sides:
        return entries
    return (Entry("EXIF", "GPSPosition", f"{sides[0]:.5f}, {sides[1]:.5f}"), *entries)


def _degrees(tags: dict[str, Any], name: str) -> float | None:
    """Latitude or longitude in degrees, south and west below 0; None if it is no number."""
    try:
        degrees, minutes, seconds = (float(part) for part in tags[name])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    value = degrees + minutes / 60 + seconds / 3600
    value = -value if str(tags.get(f"{name}Ref", "")).upper() in {"S", "W"} else value
    return value if abs(value) <= 360 else None


def _read_thumbnail(data: bytes) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                preview = None if has_large_exif(image) else read_preview(image)
        if preview is None:
            return b""
        preview.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        shown = io.BytesIO()
        preview.save(shown, "JPEG", quality=85)
        return shown.getvalue()
    except DECODER_ERRORS:
        return b""
