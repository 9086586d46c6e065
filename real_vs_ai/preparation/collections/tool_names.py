"""Tell by the name of a file which tool made the picture in it.

Sites lose the metadata of generated pictures, but many keep the names that the tools gave them.

>>> tool_of("public/images/Gemini_Generated_Image_k3jq0xk3jq0xk3jq.png").name
'Gemini'
>>> tool_of("public/images/team.png") is None
True
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import JpegImagePlugin

from real_vs_ai.core.images import DECODER_ERRORS
from real_vs_ai.preparation.image_files import open_jpeg

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IMAGE = r"\.(?:png|jpe?g|webp)$"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
# Midjourney numbers the pictures of a grid; a file of a grid has no number, and four megapixels.
_NUMBERED = re.compile(rf"{_UUID}_[0-3]", re.IGNORECASE)
_GRID_PIXELS = 4_000_000
# The sum of the luma table of quality 75, as libjpeg scales the tables of the JPEG standard.
_LOVABLE_LUMA = 1858
_SUBSAMPLED_420 = 2


@dataclass(frozen=True)
class Tool:
    """A row of `tools.toml`, which says what each column means.

    Attributes:
        reject: Why a file is none of its pictures, by path, size in pixels and content, or "".
    """

    name: str
    pattern: str
    leave_out: str
    held_out: bool = False
    package: str = ""
    reject: Callable[[str, int, bytes], str] = lambda path, pixels, data: ""

    def names(self, path: str) -> bool:
        """Whether the tool gave this file its name, and it is none to leave out."""
        pattern, leave_out = _compiled(self.pattern), _compiled(self.leave_out)
        return bool(pattern.search(path)) and not leave_out.search(path)


def tool_of(path: str) -> Tool | None:
    """The tool that gave a file its name; None where no row of the table fits."""
    return next((tool for tool in TOOLS.values() if tool.names(path)), None)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _reject_grid(path: str, pixels: int, data: bytes) -> str:
    is_grid = pixels >= _GRID_PIXELS and not _NUMBERED.search(path)
    return "perhaps a grid of four pictures" if is_grid else ""


def _reject_other_encoder(path: str, pixels: int, data: bytes) -> str:
    """Lovable writes JFIF without Exif, 4:2:0, with the tables of quality 75."""
    try:
        with open_jpeg(data) as image:
            luma = sum(image.quantization.get(0, ()))
            sampling = JpegImagePlugin.get_sampling(image)
            plain = "jfif" in image.info and "exif" not in image.info
    except DECODER_ERRORS:
        plain = False
    if plain and luma == _LOVABLE_LUMA and sampling == _SUBSAMPLED_420:
        return ""
    return "not encoded as the tool encodes its pictures"


_REJECT = {"grid": _reject_grid, "other encoder": _reject_other_encoder}


def _read_tools() -> Iterator[Tool]:
    text = Path(__file__).with_name("tools.toml").read_text(encoding="utf-8")
    for name, pattern in (("<uuid>", _UUID), ("<image>", _IMAGE), ("<month>", _MONTH)):
        text = text.replace(name, pattern)
    for row in tomllib.loads(text)["tools"]:
        if "reject" in row:
            row["reject"] = _REJECT[row["reject"]]
        yield Tool(**row)


TOOLS = {tool.name: tool for tool in _read_tools()}
