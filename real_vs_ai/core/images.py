"""Decode bytes or a path to upright sRGB pixels, or say in one line why that fails.

Training, scoring and the app all read images here, so that they see the same pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from real_vs_ai.core.config import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.file_structure import find_excess, name_other_kind
from real_vs_ai.core.messages import Message

# A JPEG with further pictures behind the first (previews, depth) has its own name in Pillow.
_JPEG_FORMATS = frozenset({"JPEG", "MPO"})
_ROWS_IN_STRIP = 256
_HIGHEST_16_BIT = 65_535
# 65,535 is 255 × 257: the nearest value of 8 bits.
_TO_8_BITS = ((np.arange(_HIGHEST_16_BIT + 1) + 128) // 257).astype(np.uint8)
# More than 8 bits a sample, or floating point.
_DEEP_MODES = ("I", "F")
# What Pillow's decoders raise on damaged or hostile files, found by feeding them such files.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RuntimeError,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class ImageFormat:
    """A file format that can be read.

    Attributes:
        extensions: Of its files; a file without an extension gets the first.
        animated: Whether a file may hold several frames, of which the first is taken.
        copied: Whether augmented copies keep the format; otherwise they are PNG.
        most_pixels: Of an image, where the format's decoder takes more memory than others.
    """

    name: str
    extensions: tuple[str, ...]
    title: str
    animated: bool = False
    copied: bool = False
    most_pixels: int = MAX_IMAGE_PIXELS


# Pillow's other decoders (EPS runs Ghostscript, for one) are never offered a stranger's file.
# HEIF needs the package pillow-heif.
FORMATS = {
    entry.name: entry
    for entry in (
        ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG", copied=True),
        ImageFormat("PNG", (".png",), "PNG", animated=True, copied=True),
        # Its decoder holds an image four times: 16 bytes a pixel.
        ImageFormat("WEBP", (".webp",), "WebP", animated=True, copied=True, most_pixels=60_000_000),
        ImageFormat("GIF", (".gif",), "GIF", animated=True),
        ImageFormat("BMP", (".bmp", ".dib"), "BMP", copied=True),
        ImageFormat("DIB", (".dib", ".bmp"), "BMP"),
        ImageFormat("TIFF", (".tif", ".tiff"), "TIFF", copied=True),
        ImageFormat("AVIF", (".avif",), "AVIF", animated=True),
        ImageFormat("HEIF", (".heic", ".heif"), "HEIC"),
    )
}
IMAGE_EXTENSIONS = frozenset(end for entry in FORMATS.values() for end in entry.extensions)


class ImageError(InputError):
    """An image that cannot be used; the message is one line that says why."""


class ImageTooLargeError(ImageError):
    """An image of more bytes or pixels than are allowed."""


@dataclass(frozen=True)
class DecodedImage:
    """An image as the network and people should see it.

    Attributes:
        image: Upright sRGB pixels as Pillow holds them, mode RGB; resizing from here spares two
            copies, a quarter of the time that a camera's photograph takes.
        format: The file's real format, whatever its name says: "JPEG", "PNG", …
        mode: Pillow's mode of the stored image: "RGB", "CMYK", "P", "I;16", …
        notes: What was done to it that a person may want to know, one sentence each.
    """

    image: Image.Image
    format: str
    mode: str
    notes: tuple[str, ...]

    @cached_property
    def pixels(self) -> np.ndarray:
        """The same pixels as an array, shape (height, width, 3), uint8, 0 to 255."""
        return np.asarray(self.image)

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of itself before it is decoded: its upright size and its real format."""

    width: int
    height: int
    format: str


def is_image_name(path: str | Path) -> bool:
    """Whether a file's name ends as images do; the content is judged by decoding it."""
    return os.path.splitext(path)[1].lower() in IMAGE_EXTENSIONS  # noqa: PTH122 (speed)


def open_image(source: str | Path | bytes) -> np.ndarray:
    """Upright sRGB pixels of an image, shape (height, width, 3), uint8; see `decode_image`."""
    return decode_image(source).pixels


def read_image_file(path: str | Path, *, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """A file's bytes.

    Raises:
        ImageError: It is too large, or no ordinary file: a device or a pipe may never end.
        OSError: It cannot be read.
    """
    status = os.stat(path)  # noqa: PTH116 (speed)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(Message("error.no_file"))
    if status.st_size > max_bytes:
        raise _too_large(status.st_size, max_bytes)
    with open(path, "rb") as file:  # noqa: PTH123 (speed)
        return file.read(status.st_size)


def decode_image(
    source: str | Path | bytes,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    max_bytes: int = MAX_IMAGE_BYTES,
) -> DecodedImage:
    """Decode the first frame of an image.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparency is
    laid over white, 16-bit samples are scaled to 8 bits, CMYK and greyscale become RGB.

    Args:
        max_pixels: Larger images (width × height) are refused before they are decoded.
        max_bytes: Larger files are refused before they are read.

    Raises:
        ImageError: The file is empty, too large, not an image, damaged or truncated.
        FileNotFoundError: There is no such file.
    """
    data = _read_bytes(source, max_bytes=max_bytes)
    with _open_file(data, max_pixels=max_pixels) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _to_upright_rgb(image)
        except DECODER_ERRORS as error:
            reason = one_line(error)
            is_cut = "truncated" in reason
            sentence = Message("error.damaged", reason=reason)
            raise ImageError(Message("error.truncated") if is_cut else sentence) from error


def read_header(source: str | Path | bytes) -> ImageHeader:
    """What a file's header says, without decoding it; raises as `decode_image` does."""
    data = _read_bytes(source, max_bytes=MAX_IMAGE_BYTES)
    with _open_file(data, max_pixels=MAX_IMAGE_PIXELS) as image:
        width, height = image.size
        # Damaged EXIF data turns nothing, as in decoding; orientations 5 to 8 lie on their side.
        with contextlib.suppress(*DECODER_ERRORS):
            exif = image.getexif() if may_have_exif(image, data) else {}
            if exif.get(ExifTags.Base.Orientation, 1) in range(5, 9):
                width, height = height, width
        return ImageHeader(width, height, _format_name(image))


def count_pixels(data: bytes) -> int:
    """Width × height as a file's header says, without decoding; raises as `decode_image` does."""
    with _open_file(data, max_pixels=MAX_IMAGE_PIXELS) as image:
        return image.width * image.height


def may_have_exif(image: Image.Image, data: bytes) -> bool:
    """Whether asking an opened image for its EXIF data may find any.

    Pillow decodes a PNG to look for what may stand behind its pixels.
    """
    return image.format != "PNG" or b"eXIf" in data or b"Raw profile type" in data


def _open_file(data: bytes, *, max_pixels: int) -> Image.Image:
    if excess := find_excess(data):
        raise ImageError(excess)
    try:
        with warnings.catch_warnings():
            # Our own limit, checked next, stands in place of Pillow's warning.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=readable_formats())
    except UnidentifiedImageError as error:
        if other := name_other_kind(data):
            raise ImageError(other) from error
        raise ImageError(Message("error.no_image", formats=describe_formats())) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(Message("error.too_many_pixels", most=max_pixels)) from error
    except DECODER_ERRORS as error:
        raise ImageError(Message("error.header", reason=one_line(error))) from error
    width, height = image.size
    max_pixels = min(max_pixels, FORMATS[_format_name(image)].most_pixels)
    if width * height > max_pixels:
        raise ImageTooLargeError(
            Message("error.pixels", width=width, height=height, most=max_pixels)
        )
    if width < 1 or height < 1:
        raise ImageError(Message("error.no_pixels", width=width, height=height))
    return image


def _too_large(size: int, max_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(Message("error.too_large", bytes=size, most=max_bytes))


def resize_image(image: np.ndarray | DecodedImage, image_size: int) -> np.ndarray:
    """Antialiased bilinear resize to a square, as every network input is made.

    Args:
        image: Decoded, or its pixels, shape (height, width, 3), uint8: both give the same result.
        image_size: Side of the square in pixels; the aspect ratio is not kept.

    Returns:
        Shape (image_size, image_size, 3), uint8.
    """
    shape = (image.height, image.width) if isinstance(image, DecodedImage) else image.shape[:2]
    if shape == (image_size, image_size):
        return image.pixels if isinstance(image, DecodedImage) else image
    held = image.image if isinstance(image, DecodedImage) else Image.fromarray(image)
    return np.asarray(held.resize((image_size, image_size), Image.Resampling.BILINEAR))


def describe_formats() -> str:
    """The formats that can be read, for people: "JPEG, PNG, …"."""
    return ", ".join(dict.fromkeys(FORMATS[name].title for name in readable_formats()))


def register_heif() -> None:
    """Let Pillow read HEIC where pillow-heif is installed; calling it again costs nothing."""
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return
        pillow_heif.register_heif_opener()


def readable_formats() -> list[str]:
    """Pillow's names of the formats that can be read here."""
    register_heif()
    return [name for name in FORMATS if name != "HEIF" or name in Image.OPEN]


def file_extension(file_format: str) -> str:
    """The extension that files of a format get: ".jpg"."""
    known = FORMATS.get(file_format)
    return known.extensions[0] if known else ".img"


def _read_bytes(source: str | Path | bytes, *, max_bytes: int) -> bytes:
    if not isinstance(source, bytes):
        source = read_image_file(source, max_bytes=max_bytes)
    if len(source) > max_bytes:
        raise _too_large(len(source), max_bytes)
    if not source:
        raise ImageError(Message("error.empty"))
    return source


def _to_upright_rgb(image: Image.Image) -> DecodedImage:
    notes: list[Message] = []
    # Counting the frames would read the whole file, a million frames one by one.
    if (
        image.format in FORMATS
        and FORMATS[image.format].animated
        and getattr(image, "is_animated", False)
    ):
        notes.append(Message("note.animated"))
    file_format, mode = _format_name(image), image.mode
    image.load()
    profile = image.info.get("icc_profile")
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        upright = ImageOps.exif_transpose(image) if turned else image
        if turned:
            notes.append(Message("note.turned"))
    except DECODER_ERRORS:
        upright = image
        notes.append(Message("note.exif"))
    flat = _over_white(upright, notes)
    rgb = _to_srgb(_to_8_bits(flat, notes), profile, notes)
    return DecodedImage(rgb, file_format, mode, tuple(notes))


def _over_white(image: Image.Image, notes: list[Message]) -> Image.Image:
    transparent = image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info
    if not transparent:
        return image
    if image.mode.startswith(_DEEP_MODES):
        # Pillow would clip all that is brighter than 255 of 65,535 on the way to RGBA.
        notes.append(Message("note.grey"))
        return image
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba.convert("RGB")
    notes.append(Message("note.transparent"))
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba)
    return white


def _to_8_bits(image: Image.Image, notes: list[Message]) -> Image.Image:
    """Scale the modes that hold more than 8 bits a sample; Pillow itself would clip them."""
    if not image.mode.startswith(_DEEP_MODES):
        return image
    samples = np.asarray(image)
    full_scale = _full_scale(samples)
    notes.append(Message("note.depth"))
    scaled = np.empty(samples.shape, dtype=np.uint8)
    # In strips: as floating-point numbers, or indices, a large image would take gigabytes.
    for start in range(0, len(samples), _ROWS_IN_STRIP):
        strip = samples[start : start + _ROWS_IN_STRIP]
        if full_scale == _HIGHEST_16_BIT and samples.dtype.kind in "iu":
            scaled[start : start + _ROWS_IN_STRIP] = np.take(_TO_8_BITS, strip, mode="clip")
            continue
        strip = strip.astype(np.float64)
        strip = np.nan_to_num(strip, nan=0.0, posinf=full_scale, neginf=0.0) / full_scale * 255.0
        scaled[start : start + _ROWS_IN_STRIP] = np.clip(np.rint(strip), 0, 255)
    return Image.fromarray(scaled)


def _full_scale(samples: np.ndarray) -> float:
    """What stands for white in samples of more than 8 bits."""
    if samples.dtype.kind in "iu":
        # 16-bit files open in 16- and 32-bit modes; brighter than 65,535 only 32-bit files are.
        return _HIGHEST_16_BIT if samples.max() <= _HIGHEST_16_BIT else 2**32 - 1
    highest = float(np.max(samples, initial=0.0, where=np.isfinite(samples)))
    return next((scale for scale in (1.0, 255.0, 65_535.0) if highest <= scale), highest)


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[Message]) -> Image.Image:
    if profile and image.mode == "P":
        image = image.convert("RGB")
    if profile and image.mode in {"RGB", "CMYK", "L"}:
        try:
            source_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source_profile):
                converted = ImageCms.profileToProfile(
                    image, source_profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                if converted is not None:
                    notes.append(Message("note.profile"))
                    return converted
        except (ImageCms.PyCMSError, *DECODER_ERRORS):
            notes.append(Message("note.profile_damaged"))
    # convert() would copy what is RGB already: 20 ms for a camera's photograph.
    return image if image.mode == "RGB" else image.convert("RGB")


def _format_name(image: Image.Image) -> str:
    # A JPEG with further pictures behind the first (previews, depth) is a JPEG to everybody else.
    return "JPEG" if image.format in _JPEG_FORMATS else image.format or ""
