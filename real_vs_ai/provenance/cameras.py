"""Find the camera in EXIF data, whether they fit the file, and what names a picture of a screen."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
from PIL import Image

from real_vs_ai.core.images import DECODER_ERRORS, readable_formats
from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.fields import read_preview, xmp_property
from real_vs_ai.provenance.findings import Camera, Code, Finding, clean

_SCREENSHOT_PROGRAMS = re.compile(
    r"gnome-screenshot|flameshot|greenshot|sharex|snipping ?tool|snagit|lightshot|spectacle"
    r"|cleanshot|screencapture|snipaste|ksnip|shutter screenshot",
    re.I,
)
# Programs that change what a picture shows; those that develop raw files are not among them.
_EDITORS = re.compile(
    r"(?:adobe )?photoshop(?! lightroom)[\w. ]{0,20}|gimp[\w. ]{0,10}|paint\.net|pixelmator|picsart"
    r"|affinity photo|facetune|faceapp|meitu|snapseed|krita|photopea|canva\b|corel[\w -]{0,20}",
    re.I,
)
_NO_CAMERA_WRITES = frozenset({"PNG", "WEBP", "GIF", "BMP"})
# How a maker's notes begin, and which makes write them: some cameras are built by others.
_MAKER_NOTES = {
    "Nikon": ("Nikon\0", ("nikon",)),
    "Apple": ("Apple iOS\0", ("apple",)),
    "Sony": ("SONY DSC", ("sony", "hasselblad")),
    "Panasonic": ("Panasonic\0", ("panasonic", "leica")),
}
# A camera and a computer may keep the time of different zones.
_CLOCKS_APART = timedelta(hours=26)
_SIDES = ("Width", "Height")
# Of 222 files of cameras one, a small crop, is less like its own preview; of previews of other
# pictures 82 of 100 are.
_LEAST_SIMILARITY = 0.4
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
# Standard deviation of brightness, 0 to 255, below which there is nothing to compare.
_PLAIN = 2.0
_PROGRAM_FIELDS = ("Software", "EXIF Software")
# Apple's and Samsung's systems write this word as the whole comment or description.
_COMMENT_FIELDS = ("EXIF UserComment", "EXIF ImageDescription", "Description", "Title", "comment")


def find_camera(
    fields: dict[str, str], data: bytes = b"", image: Image.Image | None = None
) -> list[Finding]:
    """The camera that the EXIF data name, its exposure, and what makes them doubtful.

    Args:
        data: The file, for its size, its format and the camera's preview.
        image: The file's decoded pixels; None: do not compare the preview with them.
    """
    make, model, taken = (
        clean(fields.get(f"EXIF {name}", "")) for name in ("Make", "Model", "DateTimeOriginal")
    )
    if not (make or model):
        return []
    exposure = _exposure(fields)
    doubts = tuple(filter(None, _doubts(fields, data, image))) if exposure else ()
    camera = Camera(make, model, taken, exposure, doubts)
    form, told = ("camera", {"exposure": exposure}) if exposure else ("camera_no_exposure", {})
    text = Message(f"finding.{form}", camera=camera.name, **told)
    for doubt in doubts:
        text = Message("finding.and", first=text, second=doubt)
    claim = Message("claim.camera", camera=camera.name)
    speaks_for = "Real" if exposure else None
    return [Finding(Code.CAMERA, "EXIF", text, speaks_for, claim, camera=camera, field="EXIF")]


def _doubts(fields: dict[str, str], data: bytes, image: Image.Image | None) -> Iterator[str]:
    """Why the camera data may not fit the file, one sentence each; "" where a check passes."""
    taken = _date(fields.get("EXIF DateTimeOriginal", ""))
    changed = _date(fields.get("EXIF DateTime", ""))
    if not taken:
        yield Message("doubt.no_date")
    elif changed and taken - changed > _CLOCKS_APART:
        yield Message("doubt.date_order")
    note, make = fields.get("EXIF MakerNote", ""), fields.get("EXIF Make", "").lower()
    yield from (
        Message("doubt.notes", maker=maker)
        for maker, (beginning, makes) in _MAKER_NOTES.items()
        if note.startswith(beginning) and not any(name in make for name in makes)
    )
    if editor := _EDITORS.search(fields.get("EXIF Software", "")[:200]):
        yield Message("doubt.edited", tool=clean(editor[0]))
    yield from _file_doubts(fields, data, image)


def _file_doubts(fields: dict[str, str], data: bytes, image: Image.Image | None) -> Iterator[str]:
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as opened:
            if opened.format in _NO_CAMERA_WRITES:
                yield Message("doubt.format", format=opened.format)
            width, height = opened.size
            sides = [int(_number(fields.get(f"EXIF ExifImage{side}", ""))) for side in _SIDES]
            if all(sides) and sorted(sides) != sorted(opened.size):
                sizes = {"told": f"{sides[0]} × {sides[1]}", "size": f"{width} × {height}"}
                yield Message("doubt.size", **sizes)
            preview = read_preview(opened) if image else None
        if preview and image and _similarity(preview.convert("L"), image) < _LEAST_SIMILARITY:
            yield Message("doubt.preview")
    except DECODER_ERRORS:
        return


def _similarity(preview: Image.Image, image: Image.Image) -> float:
    """How alike the two are, −1 to 1, by the correlation of their brightness; 1 if one is plain.

    A picture may have been turned without its preview.
    """
    small = image.resize((256, 256), Image.Resampling.NEAREST).convert("L")
    picture, ratio = _brightness(small, ratio=1.0), image.width / image.height
    turned = (preview.transpose(way) for way in _TURNS)
    parts = [_brightness(one, ratio=ratio) for one in (preview, *turned)]
    if picture.std() < _PLAIN or any(part.std() < _PLAIN for part in parts):
        return 1.0
    return max(float(np.corrcoef(part, picture)[0, 1]) for part in parts)


def _brightness(image: Image.Image, *, ratio: float) -> np.ndarray:
    """Means of 16 × 16 parts of the middle that has this ratio of width to height, float64.

    The preview of a wider or narrower picture has black bars.
    """
    width, height = min(image.width, image.height * ratio), min(image.height, image.width / ratio)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    parts = image.resize((16, 16), Image.Resampling.BOX, box=box)
    return np.asarray(parts, dtype=np.float64).ravel()


def _date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _exposure(fields: dict[str, str]) -> str:
    """Exposure time, aperture and sensitivity; "" without the first two."""
    seconds, aperture, sensitivity = (
        _number(fields.get(f"EXIF {name}", ""))
        for name in ("ExposureTime", "FNumber", "ISOSpeedRatings")
    )
    parts = []
    if seconds:
        parts.append(f"1/{1 / seconds:.0f} s" if seconds < 0.4 else f"{seconds:g} s")
    if aperture:
        parts.append(f"f/{aperture:g}")
    if sensitivity and parts:
        parts.append(f"ISO {sensitivity:.0f}")
    return ", ".join(parts)


def _number(text: str) -> float:
    """A number that a camera may write, or 0."""
    try:
        number = float(text.strip("(), ").split(",")[0])
    except ValueError:
        return 0.0
    return number if 1e-6 < number < 1e7 else 0.0


def find_screenshot(fields: dict[str, str]) -> list[Finding]:
    """Whether a screenshot's program, or the word "Screenshot", stands in the file."""
    programs = [fields.get(name, "") for name in _PROGRAM_FIELDS]
    programs.append(xmp_property(fields, "CreatorTool"))
    comments = [fields.get(name, "") for name in _COMMENT_FIELDS]
    comments.append(xmp_property(fields, "UserComment"))
    named = any(_SCREENSHOT_PROGRAMS.search(text[:200]) for text in programs)
    if not named and not any(text.strip().lower() == "screenshot" for text in comments):
        return []
    text, claim = Message("finding.screenshot"), Message("claim.screen")
    return [Finding(Code.SCREENSHOT, "EXIF", text, claim=claim)]
