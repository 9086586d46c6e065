"""Decide what a picture is by the evidence for it: what its file says, its name and its age.

A file that carries a generator's own traces, or by the rule `name` a name that a tool gives, is
Fake. A file that carries a camera's settings, or
that was committed before 2022, is Real. All others are left out, and so is what is no picture of
its own: composites, edits, screenshots, small copies.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.images import ImageError, decode_image, read_header
from real_vs_ai.preparation.collections.collection_list import KEPT_OUT, is_kept_out
from real_vs_ai.preparation.collections.tool_names import TOOLS
from real_vs_ai.preparation.manifest import LEFT_OUT, Fate, FileOutcome
from real_vs_ai.provenance import describe_origin, read_provenance
from real_vs_ai.provenance.findings import clean

NO_EVIDENCE = "no evidence of its origin"
CONTRADICTION = "its evidence contradicts itself"
OTHER_LABEL = "evidence of the other class"
UNKNOWN_CAMERA = "unknown camera"
UNNAMED = "unnamed generator"
SCREENSHOT = "a screenshot"
FROM_PICTURE = "made from an input picture"
MISSING = "not in the git directory"
# Stable Diffusion, the first generator that anybody could run, came in August 2022.
_BEFORE_GENERATORS = int(datetime(2022, 1, 1, tzinfo=UTC).timestamp())
_LEAST_SIDE = 256
# Longer ones are sheets of several pictures in a row, or stitched.
_MOST_ELONGATED = 2.5
# Scripts write watermarks into what they save, whose sides are whole multiples of 8 pixels.
_LONGEST_WATERMARKED = 2048
_WORD = re.compile(r"[a-z]+")
_FROM_PICTURE = re.compile(r"img2img|image2image|im2im|in-?painting|out-?painting|upscaled")
_SCREENSHOT = re.compile(r"screen.?(?:shot|cap|grab)|captura.de.pantalla|bildschirmfoto|snipaste")
_WORDS = {
    name: frozenset(words.split())
    for name, words in tomllib.loads(
        Path(__file__).with_name("words.toml").read_text(encoding="utf-8")
    ).items()
}
# What a repository says whose old pictures may be made by a network or a renderer.
_MAKES_PICTURES = re.compile(
    r"(?<![a-z])(?:(?:style|cycle|dc|vq|big|pro|pg|gau|info|w|ac|star|e?sr|sin)?-?gans?"
    r"|deep-?fakes?|face-?swap|generative|diffusion|dall-?e|(?:variational.)?autoencoders?|vaes?"
    r"|pix2pix|inpainting|super-?resolution|(?:image|texture|view|face).synthesis|synthetic"
    r"|synthesi[sz]\w*|style.transfer|ray-?trac\w+|(?:ray|path).?trac\w+|shaders?|blender|unity"
    r"|unreal|minecraft)(?![a-z])"
)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a file says of itself.

    Attributes:
        evidence: What says so, for people: "generator: parameters", or "".
        generator: Program or service that made it, with its model, or "".
        prompt: What the generator was told, or "".
        camera: Make and model of the camera that wrote its exposure, or "".
        day: When the photograph was taken, as the file writes it, or "".
    """

    evidence: str = ""
    generator: str = ""
    prompt: str = ""
    camera: str = ""
    day: str = ""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that may be a picture.

    Attributes:
        key: By which its bytes are read again: a blob id, or its path.
        blob: The git blob id of its content.
        problem: Why it is neither a generated picture nor a photograph, or "".
        committed: When it came into the history, in seconds since 1970, or None.
        tool: By the rule `name`: the tool that gave it its name, otherwise "".
    """

    path: str
    key: str
    blob: str
    problem: str = ""
    traces: Traces = Traces()
    committed: int | None = None
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A file with a label.

    Attributes:
        made_by: Generator or camera; with the repository, it names the source.
        evidence: For people, one clause.
        group: Pictures of one group share a split, or "".
        tiles: (row, column) of the tiles to take; one (0, 0) where the file is not cut.
    """

    file: FoundFile
    label: str
    made_by: str
    evidence: str
    group: str
    tiles: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def key(self) -> str:
        return self.file.key

    @property
    def source(self) -> tuple[str, str]:
        return self.label, self.made_by


def makes_pictures(texts: Iterable[str]) -> bool:
    """Whether a repository may make pictures itself, by its name and its README.

    Of such a repository an old date proves nothing: GANs and renderers are older than 2022.

    >>> makes_pictures(["owner/my-StyleGAN2-faces"]), makes_pictures(["photos of my holidays"])
    (True, False)
    """
    return any(_MAKES_PICTURES.search(text.casefold()) for text in texts)


def read_evidence(
    file: FoundFile, data: bytes | None, min_side: int, kept_out: tuple[Path, ...]
) -> FoundFile:
    """The file with what it says of itself, or with the reason why it is out."""
    if file.problem:
        return file
    if data is None:
        return replace(file, problem=MISSING)
    if not file.blob:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        file = replace(file, blob=blob)
    try:
        if is_kept_out(data, kept_out):
            raise ImageError(KEPT_OUT)
        header = read_header(data)
        short, long = sorted((header.width, header.height))
        if short < max(min_side, _LEAST_SIDE):
            raise ImageError(f"too small: {header.width} × {header.height} pixels")
        if long > _MOST_ELONGATED * short:
            raise ImageError(f"a strip or a panorama: {header.width} × {header.height} pixels")
        if file.tool and (reason := TOOLS[file.tool].reject(file.path, short * long, data)):
            raise ImageError(reason)
        watermarked = long <= _LONGEST_WATERMARKED and not (short % 8 or long % 8)
        return replace(file, traces=_read_traces(data, watermarks=watermarked))
    except ImageError as error:
        return replace(file, problem=str(error))


def _read_traces(data: bytes, *, watermarks: bool) -> Traces:
    """What a file says of its origin.

    Args:
        watermarks: Decode it, and look for open watermarks, where its metadata say nothing.

    Raises:
        ImageError: It is neither a generated picture nor a photograph.
    """
    findings = read_provenance(data)
    if watermarks and not any(finding.speaks_for for finding in findings):
        with contextlib.suppress(ImageError):
            findings = read_provenance(data, decode_image(data).image)
    origin = describe_origin(findings)
    if len({finding.speaks_for for finding in findings if finding.speaks_for}) > 1:
        raise ImageError(CONTRADICTION)
    if origin.composite or origin.screenshot:
        raise ImageError("a composite" if origin.composite else SCREENSHOT)
    if origin.from_picture:
        raise ImageError(f"{FROM_PICTURE}: {clean(origin.from_picture)}")
    evidence = next((f"{f.code}: {f.field or f.kind}" for f in findings if f.speaks_for), "")
    if origin.speaks_for == POSITIVE_CLASS:
        return Traces(evidence, generator=origin.generator or UNNAMED, prompt=origin.prompt)
    camera = clean(origin.camera.name) if origin.speaks_for and origin.camera else ""
    # Some programs fill in "--" for what they do not know.
    if origin.camera and any(map(str.isalnum, camera)):
        return Traces(evidence, camera=camera, day=origin.camera.taken[:10])
    return Traces()


def label_files(
    files: Sequence[FoundFile], *, makes_pictures: bool, wanted: str, folder_groups: bool
) -> tuple[list[Labelled], list[FileOutcome]]:
    """Label what there is evidence for, and say why of all others not.

    Args:
        makes_pictures: Whether the repository may make pictures, so that dates do not count.
        wanted: Take this class only, or "" for both.
        folder_groups: Group photographs by camera and day, for data that are not of one split.
    """
    labelled, outcomes = [], []
    first: dict[str, str] = {}
    for file in files:
        if file.blob and file.blob in first:
            outcomes.append(FileOutcome(file.path, Fate.DUPLICATE, first[file.blob]))
            continue
        first[file.blob] = file.path
        entry = _label(file, makes_pictures=makes_pictures, folder_groups=folder_groups)
        if isinstance(entry, str):
            outcomes.append(left_out(file, entry))
        elif wanted and entry.label != wanted:
            outcomes.append(left_out(file, OTHER_LABEL))
        else:
            labelled.append(entry)
    return labelled, outcomes


def _label(file: FoundFile, *, makes_pictures: bool, folder_groups: bool) -> Labelled | str:
    """The file with its label, or why it has none."""
    traces = file.traces
    if reason := file.problem or _path_reason(file):
        return reason
    dated = file.committed is not None and file.committed < _BEFORE_GENERATORS
    if traces.generator or file.tool:
        if dated or traces.camera:
            return CONTRADICTION
        group = f"prompt/{_digest(traces.prompt)}" if traces.prompt.strip() else ""
        evidence = f"name: {file.tool}" if file.tool else traces.evidence
        return Labelled(file, "Fake", file.tool or traces.generator, evidence, group)
    folder = file.path.rpartition("/")[0]
    if traces.camera:
        series = f"{traces.camera} {traces.day or folder}"
        group = f"photographs/{_digest(series)}" if folder_groups else ""
        return Labelled(file, "Real", traces.camera, traces.evidence, group)
    if (
        dated
        and file.committed is not None
        and not makes_pictures
        and _WORDS["computed"].isdisjoint(_words(file.path))
    ):
        day = datetime.fromtimestamp(file.committed, UTC).date()
        group = f"photographs/{_digest(folder)}" if folder_groups else ""
        return Labelled(file, "Real", UNKNOWN_CAMERA, f"committed {day}", group)
    return NO_EVIDENCE


def _path_reason(file: FoundFile) -> str:
    path = file.path
    small_copies = _WORDS["small_copies"]
    if file.tool:
        small_copies = small_copies - _WORDS["large_by_name"]
    if _SCREENSHOT.search(path.casefold()):
        return SCREENSHOT
    if _FROM_PICTURE.search(path.casefold()):
        return FROM_PICTURE
    if not small_copies.isdisjoint(_words(path)):
        return "a small copy or a sign"
    is_sheet = not _WORDS["sheets"].isdisjoint(_words(path.split("/")[-1]))
    return "a sheet or a comparison" if is_sheet else ""


def _words(path: str) -> set[str]:
    return set(_WORD.findall(path.casefold()))


def _digest(text: str) -> str:
    normal = " ".join(text.casefold().split())
    return hashlib.sha256(normal.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def left_out(file: FoundFile, reason: str) -> FileOutcome:
    """The outcome of a file that is not taken."""
    return FileOutcome(file.path, LEFT_OUT, reason)
