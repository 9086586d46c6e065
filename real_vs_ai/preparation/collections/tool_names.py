"""Tell by the name of a file which tool made the picture in it.

Sites lose the metadata of generated pictures, but many keep the names that the tools gave them.

>>> tool_of("public/images/Gemini_Generated_Image_k3jq0xk3jq0xk3jq.png").name
'Gemini'
>>> tool_of("public/images/team.png") is None
True
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, JpegImagePlugin

from real_vs_ai.core.images import DECODER_ERRORS

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IMAGE = r"\.(?:png|jpe?g|webp)$"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_SIGNS = "logo|icon|vector"
# Midjourney numbers the pictures of a grid; a file of a grid has no number, and four megapixels.
_NUMBERED = re.compile(rf"{_UUID}_[0-3]", re.IGNORECASE)
_GRID_PIXELS = 4_000_000
# The sum of the luma table of quality 75, as libjpeg scales the tables of the JPEG standard.
_LOVABLE_LUMA = 1858
_SUBSAMPLED_420 = 2


@dataclass(frozen=True)
class Tool:
    """A row of the table: a tool, and how to tell its files.

    Attributes:
        pattern: Regular expression that is searched in a file's path, whatever its case.
        leave_out: Another one, for files of these that are no pictures of its own making, or signs.
        held_out: Whether its pictures are for the test alone, so that no model learns from it.
        package: What the repository's package.json must hold besides, or "".
        reject: Why a file is none of its pictures, by path, size in pixels and content, or "".
    """

    name: str
    pattern: str
    leave_out: str = _SIGNS
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
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            luma = sum(image.quantization.get(0, ()))
            sampling = JpegImagePlugin.get_sampling(image)
            plain = "jfif" in image.info and "exif" not in image.info
    except DECODER_ERRORS:
        plain = False
    if plain and luma == _LOVABLE_LUMA and sampling == _SUBSAMPLED_420:
        return ""
    return "not encoded as the tool encodes its pictures"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "ChatGPT",
            rf"(?:^|/)ChatGPT[ _-]Image[ _-](?:{_MONTH}|\d{{1,4}})[^/]*{_IMAGE}",
            "logo|removebg|icon",
        ),
        Tool(
            "Gemini", rf"(?:^|/)Gemini_Generated_Image_[a-z0-9]+[^/]*{_IMAGE}", "logo|removebg|icon"
        ),
        Tool(
            "AI Studio",
            rf"(?:^|/)Generated[ _-]Image[ _-]{_MONTH}[a-z]*[^/]*{_IMAGE}",
            "logo|removebg|icon",
        ),
        Tool(
            "DALL-E 3",
            rf"(?:^|/)DALL[·.\-_ ]{{0,3}}E[ _-]20\d\d-\d\d-\d\d[^/]*{_IMAGE}",
            rf"{_SIGNS}|diagram",
        ),
        Tool(
            "Leonardo",
            r"(?:^|/)(?:Leonardo_(?:Phoenix|Kino|Vision|Diffusion|Lightning|Anime)[^/]*"
            r"|Lucid_(?:Origin|Realism)_[^/]*|Flux_(?:Dev|Schnell|Pro)_[^/]*|AlbedoBase_XL_[^/]*"
            r"|(?:lucid-(?:origin|realism)|kino-xl|phoenix(?:-[0-9.]+)?|flux-(?:dev|schnell))"
            r"_[^/]+-[0-3](?: ?\(\d+\))?"
            rf"|DreamShaper_v[^/]*|Default_[^/]+_[0-3](?:_{_UUID}(?:_[0-3])?)?){_IMAGE}",
            held_out=True,
        ),
        Tool(
            "Freepik",
            rf"(?:^|/)freepik__[^/]+__\d{{4,6}}[^/]*{_IMAGE}",
            # A user's own picture, changed.
            "freepik__(?:upload|enhance|background|adjust|expand|retouch|talk)__|logo",
        ),
        Tool(
            "Dreamina",
            rf"(?:^|/)(?:dreamina|jimeng)-20\d\d-\d\d-\d\d-[^/]*{_IMAGE}",
            "edit image|logo",
            held_out=True,
        ),
        Tool("Firefly", rf"(?:^|/)Firefly[ _](?:[^/]*[ _-])?\d{{3,6}}[^/]*{_IMAGE}"),
        Tool(
            "Lovable",
            r"^src/assets/[^/]+\.jpe?g$",
            "lovable-uploads|logo|icon|background|pattern|texture",
            package="lovable-tagger",
            reject=_reject_other_encoder,
        ),
        # The last: it names files as widely as others with a prefix of their own do.
        Tool(
            "Midjourney",
            rf"(?:^|/)[a-z0-9.-]+_[^/]+_{_UUID}(?:_[0-3])?[^/]{{0,12}}{_IMAGE}",
            # Messengers name files with such an id too.
            rf"{_SIGNS}|flat_|seamless|whatsapp",
            reject=_reject_grid,
        ),
    )
}
