"""Files made to hold up a decoder are refused before one opens them; ordinary files are not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from real_vs_ai.core import images
from real_vs_ai.core.file_structure import find_excess
from real_vs_ai.core.images import ImageError, count_pixels, decode_image, read_header
from real_vs_ai.core.messages import in_language
from real_vs_ai.provenance import read_provenance

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


def encode(file_format: str, picture: Image.Image = PICTURE, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind))


def jpeg_with(parts: bytes) -> bytes:
    data = encode("JPEG")
    return data[:2] + parts + data[2:]


def png_with(parts: bytes, *, before: bytes = b"IDAT") -> bytes:
    data = encode("PNG")
    place = data.index(before) - 4
    return data[:place] + parts + data[place:]


def gif_with(parts: bytes) -> bytes:
    data = encode("GIF")
    place = 13 + (3 << (data[10] & 7) + 1)
    return data[:place] + parts + data[place:]


def gif_of_tiny_blocks() -> bytes:
    data = encode("GIF")
    return data[:-2] + b"\x01\x00" * 400_001 + b"\0;"


def riff_with(parts: bytes) -> bytes:
    content = encode("WEBP")[8:] + parts
    return b"RIFF" + struct.pack("<I", len(content)) + content


def tiff_with(entries: list[tuple[int, int, int, int]]) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


def packed_bmp(size: int) -> bytes:
    data = bytearray(encode("BMP", PICTURE.convert("P")))
    struct.pack_into("<I", data, 30, 1)
    return bytes(data).ljust(size, b"\x01")


def many_scans(pixels_side: int, scans: int) -> bytes:
    data = encode("JPEG", Image.new("RGB", (pixels_side, pixels_side)), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


HOSTILE = {
    "empty segments": lambda: jpeg_with(segment(0xE1, b"") * 1_000),
    "bytes between segments": lambda: jpeg_with(b"\xff" * 1_000),
    "Exif segments": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 20),
    "Photoshop segments": lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0" * 4_000) * 40),
    "bytes of segments": lambda: jpeg_with(segment(0xE5, bytes(65_000)) * 400),
    "scans": lambda: many_scans(64, 120),
    "scans of a large JPEG": lambda: many_scans(6_000, 50),
    "text chunks": lambda: png_with(chunk(b"tEXt", b"k\0v") * 10_001),
    "text chunks behind the pixels": lambda: png_with(
        chunk(b"tEXt", b"k\0v") * 10_001, before=b"IEND"
    ),
    "empty chunks of pixels": lambda: png_with(chunk(b"IDAT", b"") * 65_537),
    "bytes beside the pixels": lambda: png_with(chunk(b"prVt", bytes(2**20)) * 33),
    "comment blocks": lambda: gif_with(b"!\xfe" + b"\x01a" * 10_001 + b"\0"),
    "bytes between blocks": lambda: gif_with(b"\x02" * 10_001),
    "blocks of one byte": gif_of_tiny_blocks,
    "WebP chunks": lambda: riff_with(b"abcd\0\0\0\0" * 10_000),
    "AVIF boxes": lambda: encode("AVIF") + struct.pack(">I4s", 8, b"free") * 10_000,
    "TIFF entries": lambda: tiff_with([(256, 3, 1, 8)] * 10_001),
    "TIFF strips": lambda: tiff_with([(273, 4, 12_000_000, 8)]),
    "TIFF values in the Exif directory": lambda: (
        tiff_with([(34665, 4, 1, 26)]) + struct.pack("<HHHII", 1, 300, 3, 20_000_000, 8)
    ),
    "run lengths": lambda: packed_bmp(2 * 2**20),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_would_hold_up_a_decoder_is_refused_before_it_opens(name, monkeypatch):
    data = HOSTILE[name]()

    def fail(*args, **options):
        raise AssertionError("a decoder opened the file")

    monkeypatch.setattr(Image, "open", fail)
    for read in (decode_image, read_header, count_pixels):
        with pytest.raises(ImageError, match=r"more than|above") as refused:
            read(data)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 100
    told = find_excess(data)
    assert {in_language(told, language) for language in ("de", "es", "fr")}.isdisjoint({told})
    assert read_provenance(data) == ()


def test_files_of_cameras_and_editors_pass():
    exif = Image.Exif()
    exif[271] = "A maker"
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a long prompt " * 1_000)
    frames = {"save_all": True, "append_images": [PICTURE.rotate(turn) for turn in range(20)]}
    depth_map = jpeg_with(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" * 1_800) * 100)
    files = {
        "camera": encode("JPEG", exif=exif, icc_profile=bytes(300_000)),
        "progressive": encode("JPEG", progressive=True),
        "depth map": depth_map,
        "seal": jpeg_with(segment(0xEB, b"JP" + bytes(64_000)) * 200),
        "generator": encode("PNG", pnginfo=text),
        "animated PNG": encode("PNG", **frames),
        "animated WebP": encode("WEBP", **frames),
        "animated GIF": encode("GIF", **frames),
        "strips": encode("TIFF", compression="tiff_lzw"),
        "AVIF": encode("AVIF"),
        "BMP": encode("BMP"),
    }
    assert {name: find_excess(data) for name, data in files.items()} == dict.fromkeys(files, "")
    for data in files.values():
        assert decode_image(data).width == 80


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP"])
def test_a_file_cut_off_anywhere_is_left_to_its_decoder(file_format):
    data = encode(file_format)
    assert {find_excess(data[:end]) for end in range(0, len(data), 7)} == {""}


def test_the_size_of_a_png_is_read_without_decoding_it(monkeypatch):
    data = encode("PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert count_pixels(data) == 80 * 60
    assert (read_header(data).width, read_header(data).height) == (80, 60)
    assert read_provenance(data) == ()


def test_a_webp_that_its_decoder_would_hold_four_times_is_refused(monkeypatch):
    entry = images.FORMATS["WEBP"]
    assert entry.most_pixels < images.FORMATS["PNG"].most_pixels
    with pytest.raises(images.ImageTooLargeError, match=f"{entry.most_pixels:,}"):
        decode_image(encode("WEBP", Image.new("L", (7_800, 7_800)), lossless=True, method=0))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04" + bytes(30), "a zip"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="">', "an SVG drawing"),
        (b"<svg/>", "an SVG drawing"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"some words", "not an image in a format we read"),
    ],
)
def test_what_people_take_for_a_picture_is_named(data, reason):
    with pytest.raises(ImageError, match=f"^{reason}"):
        decode_image(data)
