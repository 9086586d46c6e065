"""Find the camera in EXIF data, and what says that a file shows a screen."""

from __future__ import annotations

import re

from real_vs_ai.provenance.fields import xmp_property
from real_vs_ai.provenance.findings import Camera, Code, Finding, clean

_SCREENSHOT_PROGRAMS = re.compile(
    r"gnome-screenshot|flameshot|greenshot|sharex|snipping ?tool|snagit|lightshot|spectacle"
    r"|cleanshot|screencapture|snipaste|ksnip|shutter screenshot",
    re.I,
)
_PROGRAM_FIELDS = ("Software", "EXIF Software")
# Apple's and Samsung's systems write this word as the whole comment or description.
_COMMENT_FIELDS = ("EXIF UserComment", "EXIF ImageDescription", "Description", "Title", "comment")


def find_camera(fields: dict[str, str]) -> list[Finding]:
    """The camera that the EXIF data name, and its exposure."""
    make, model, taken = (
        clean(fields.get(f"EXIF {name}", "")) for name in ("Make", "Model", "DateTimeOriginal")
    )
    if not (make or model):
        return []
    camera = Camera(make, model, taken, _exposure(fields))
    detail = f" and an exposure ({camera.exposure})" if camera.exposure else ", but no exposure"
    text = f"Its EXIF data name a camera ({camera.name}){detail}."
    claim = f"taken with a camera ({camera.name})"
    speaks_for = "Real" if camera.exposure else None
    return [Finding(Code.CAMERA, "EXIF", text, speaks_for, claim, camera=camera, field="EXIF")]


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
    text = "Its metadata say that it is a screenshot."
    return [Finding(Code.SCREENSHOT, "EXIF", text, claim="a picture of a screen")]
