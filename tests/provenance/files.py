"""Pictures with metadata of our own making, in every format."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from real_vs_ai.core.images import register_heif
from tests.serving.trivial_model import encode, uniform_image

_EXIF_IFD_TAGS = {
    *("ExposureTime", "FNumber", "UserComment", "DateTimeOriginal", "ISOSpeedRatings"),
    *("ExifImageWidth", "ExifImageHeight", "MakerNote"),
}


def png_with(**fields: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, value in fields.items():
        info.add_itxt(name.replace("__", " "), value)
    return encode(uniform_image(99), pnginfo=info)


def _exif(tags: dict[str, object]) -> tuple[Image.Exif, dict]:
    """EXIF data with these tags, and its directory of the exposure."""
    exif = Image.Exif()
    sub = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        (sub if name in _EXIF_IFD_TAGS else exif)[ExifTags.Base[name]] = value
    return exif, sub


def with_exif(file_format: str = "JPEG", **tags: object) -> bytes:
    register_heif()
    # Without a tag of its own, Pillow takes the whole for empty.
    exif, sub = _exif(tags | {"ResolutionUnit": 2})
    if file_format == "TIFF":
        # Pillow leaves the directory of the exposure out of what `exif` becomes in a TIFF.
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory.update(exif)
        directory[ExifTags.IFD.Exif] = sub
        return encode(uniform_image(99), "TIFF", tiffinfo=directory)
    return encode(uniform_image(99), file_format, exif=exif)


def photograph(
    pixels: np.ndarray,
    *,
    preview: bytes = b"",
    file_format: str = "JPEG",
    leave_out: str = "",
    **tags: object,
) -> bytes:
    """A picture with the EXIF data of a camera, all in order but for these tags."""
    height, width = pixels.shape[:2]
    own = {"Make": "Nikon", "Model": "Nikon D5", "ExposureTime": 0.01, "FNumber": 2.8}
    own |= {"DateTimeOriginal": "2019:05:17 12:30:00", "DateTime": "2019:05:17 12:30:00"}
    own |= {"ExifImageWidth": width, "ExifImageHeight": height, "MakerNote": b"Nikon\0\x02\x10"}
    exif, _ = _exif({name: value for name, value in (own | tags).items() if name != leave_out})
    return encode(pixels, file_format, exif=_with_preview(exif.tobytes(), preview))


def _with_preview(exif: bytes, preview: bytes) -> bytes:
    """EXIF data with a second directory behind them, which names a small JPEG."""
    head, data = exif[:6], bytearray(exif[6:])
    order = ">" if data[:2] == b"MM" else "<"
    if not preview:
        return exif
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    struct.pack_into(f"{order}I", data, first + 2 + 12 * count, len(data))
    entries = ((0x0201, len(data) + 30), (0x0202, len(preview)))
    data += struct.pack(f"{order}H", len(entries))
    data += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    return head + bytes(data) + b"\0" * 4 + preview


def with_xmp(body: str, file_format: str = "JPEG") -> bytes:
    """A picture whose XMP packet has these attributes, or elements if it begins with "<"."""
    register_heif()
    attributes, elements = ("", body) if body.startswith("<") else (body, "")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f"{attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    if file_format == "PNG":
        return png_with(**{"XML:com.adobe.xmp": packet})
    if file_format == "TIFF":
        return encode(uniform_image(9), "TIFF", tiffinfo={700: packet.encode()})
    if file_format == "GIF":
        # The packet itself, which readers of the format step over by a trailer of bytes.
        block = b"\x21\xff\x0bXMP DataXMP" + packet.encode() + b"\x01"
        block += bytes(range(255, -1, -1)) + b"\0"
        return encode(uniform_image(9), "GIF")[:-1] + block + b";"
    return encode(uniform_image(9), file_format, xmp=packet.encode())


def with_late_text(name: bytes, text: bytes, kind: bytes = b"tEXt") -> bytes:
    """A PNG with a text chunk behind its pixels."""
    plain = encode(uniform_image(9))
    text = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\1\0en\0name\0"}[kind] + text
    content = kind + name + b"\0" + text
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return plain[:-12] + chunk + plain[-12:]


def with_iptc(record: int, text: bytes) -> bytes:
    """A JPEG with a record of the older IPTC form."""
    block = b"\x1c\x02" + bytes([record]) + struct.pack(">H", len(text)) + text
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block
    resource += b"\0" * (len(block) % 2)
    content = b"Photoshop 3.0\0" + resource
    plain = encode(uniform_image(9), "JPEG")
    return plain[:2] + b"\xff\xed" + struct.pack(">H", len(content) + 2) + content + plain[2:]
