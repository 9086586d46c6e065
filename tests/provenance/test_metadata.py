"""A file's metadata are listed whole, without the place, and hostile files do no harm."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from real_vs_ai.provenance import Metadata, read_metadata, read_place
from tests.provenance.files import photograph, png_with, with_exif, with_iptc
from tests.provenance.test_cameras import preview_of, scene
from tests.serving.trivial_model import encode, uniform_image

NAMESPACES = " ".join(
    f'xmlns:{name}="http://example.org/{name}/"' for name in ("dc", "exif", "photoshop", "ext")
)
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def packet(attributes: str = "", elements: str = "") -> bytes:
    """An XMP packet as programs write it."""
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description '
        f'rdf:about="" {NAMESPACES} {attributes}>{elements}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def with_packet(attributes: str = "", elements: str = "", file_format: str = "JPEG") -> bytes:
    return encode(uniform_image(9), file_format, xmp=packet(attributes, elements))


def with_position(*, reference: str = "S") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Canon"
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef], place[ExifTags.GPS.GPSLatitude] = reference, (51, 30, 36)
    place[ExifTags.GPS.GPSLongitudeRef], place[ExifTags.GPS.GPSLongitude] = "E", (0, 6, 0)
    return encode(uniform_image(9), "JPEG", exif=exif)


def lines(data: bytes) -> set[tuple[str, str, str]]:
    return {(one.group, one.name, one.value) for one in read_metadata(data).entries}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (with_exif(Make="Canon", FNumber=2.8), ("EXIF", "FNumber", "2.8")),
        (with_iptc(80, b"Jane Doe"), ("IPTC", "By-line", "Jane Doe")),
        (with_iptc(25, b"fox"), ("IPTC", "Keywords", "fox")),
        (png_with(parameters="a red\nfox"), ("text", "parameters", "a red fox")),
        (with_packet('photoshop:Credit="Jane"'), ("XMP", "Credit", "Jane")),
        (with_packet('photoshop:Credit="Jane"', file_format="WEBP"), ("XMP", "Credit", "Jane")),
        (
            with_packet(
                elements="<dc:subject><rdf:Bag><rdf:li>fox</rdf:li><rdf:li>snow</rdf:li></rdf:Bag>"
                "</dc:subject>"
            ),
            ("XMP", "subject", "fox, snow"),
        ),
        (
            with_packet(
                elements='<ext:Person rdf:parseType="Resource"><ext:Name>Jane</ext:Name>'
                "</ext:Person>"
            ),
            ("XMP", "Person/Name", "Jane"),
        ),
        (
            with_packet(
                elements='<ext:History><rdf:Seq><rdf:li ext:action="saved"/></rdf:Seq>'
                "</ext:History>"
            ),
            ("XMP", "History/action", "saved"),
        ),
    ],
)
def test_metadata_of_every_kind_stand_in_the_table(data, line):
    assert line in lines(data)


def test_plain_picture_has_an_empty_table():
    assert read_metadata(encode(uniform_image(9))) == Metadata()
    assert read_place(encode(uniform_image(9))) == ()


def test_a_png_without_exif_is_not_decoded_for_its_metadata(monkeypatch):
    data = encode(uniform_image((200, 40, 40), size=(64, 64)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    assert read_metadata(data) == Metadata()
    assert read_place(data) == ()


def test_position_is_told_only_on_request():
    data = with_position()
    metadata = read_metadata(data)
    assert metadata.tells_place
    assert lines(data) == {("EXIF", "Make", "Canon")}
    first, *others = read_place(data)
    assert (first.name, first.value) == ("GPSPosition", "-51.51000, 0.10000")
    assert {"GPSLatitude", "GPSLongitude"} <= {one.name for one in others}
    assert read_place(with_position(reference="N"))[0].value == "51.51000, 0.10000"


@pytest.mark.parametrize(
    "data",
    [
        with_packet('exif:GPSLatitude="51,30N"'),
        with_packet('photoshop:City="Springfield" photoshop:Country="Nowhere"'),
        with_packet(
            elements='<ext:LocationShown rdf:parseType="Resource"><ext:Sublocation>Springfield'
            "</ext:Sublocation></ext:LocationShown>"
        ),
        with_iptc(90, b"Springfield"),
        with_iptc(92, b"Springfield"),
        png_with(**{"exif:GPSLatitude": "51/1, 30/1"}),
        png_with(Comment='{"latitude": 51.5, "longitude": 0.1}'),
    ],
)
def test_other_words_on_the_place_are_told_only_on_request(data):
    metadata = read_metadata(data)
    assert (metadata.entries, metadata.tells_place) == ((), True)
    assert read_place(data)


def test_words_that_only_sound_like_a_place_stand_in_the_table():
    data = with_packet('photoshop:Capacity="5" photoshop:Statement="a" photoshop:Velocity="3"')
    assert {name for _, name, _ in lines(data)} == {"Capacity", "Statement", "Velocity"}


def test_small_picture_in_the_file_is_shown_as_it_is():
    thumbnail = read_metadata(photograph(scene(1), preview=preview_of(scene(2)))).thumbnail
    with Image.open(io.BytesIO(thumbnail)) as shown:
        assert (shown.format, max(shown.size)) == ("JPEG", 160)
        other = np.asarray(Image.fromarray(scene(2)).resize(shown.size), dtype=float)
        assert np.abs(np.asarray(shown, dtype=float) - other).mean() < 12


def nested(depth: int) -> str:
    return "<ext:a>" * depth + "</ext:a>" * depth


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"no picture",
        with_packet(elements=nested(60_000), file_format="WEBP"),
        with_packet(elements="<ext:a>x</ext:a>" * 40_000, file_format="WEBP"),
        with_packet(f'ext:a="{"x" * 60_000}"'),
        with_packet(elements="<rdf:Description>" * 50 + "</rdf:Description>" * 50),
        encode(uniform_image(9), "JPEG")
        + b"<x:xmpmeta><!DOCTYPE a [<!ENTITY b 'bbb'>]><a>&b;</a></x:xmpmeta>",
        encode(uniform_image(9), "JPEG") + b"<x:xmpmeta>" * 50_000,
        with_exif(Make="\x1b[2J\n" + "x" * 50_000),
        with_exif(UserComment=bytes(range(256)) * 200),
        photograph(scene(1), preview=b"\xff\xd8" + b"x" * 9_000),
        photograph(
            scene(1), preview=encode(np.zeros((3_000, 3_000, 3), np.uint8), "JPEG")[:60_000]
        ),
        png_with(**{f"name{i}": "x" * 5_000 for i in range(400)}),
        with_iptc(25, b"\xff" * 60_000),
    ],
)
def test_hostile_files_do_no_harm(hostile):
    start = time.perf_counter()
    metadata = read_metadata(hostile)
    read_place(hostile)
    assert time.perf_counter() - start < 5
    assert len(metadata.entries) <= 300 and len(metadata.thumbnail) < 100_000
    for one in metadata.entries:
        assert one.value.isprintable() and len(one.value) <= 1_000
        assert one.name.isprintable() and len(one.name) <= 1_000
