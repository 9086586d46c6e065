"""Findings of a file's origin, and the headline that they make together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from real_vs_ai.core.config import CLASS_NAMES, POSITIVE_CLASS
from real_vs_ai.core.messages import Message

EDITABLE = Message("forgery.editable")
_LONGEST_TEXT = 120


class Code(StrEnum):
    """What a finding is, for programs."""

    CREDENTIALS = "content_credentials"
    GENERATED = "generated"
    POSSIBLY_GENERATED = "possibly_generated"
    COMPOSITE = "composite"
    CAPTURED = "captured"
    SCREENSHOT = "screenshot"
    SOURCE = "source"
    GENERATOR = "generator"
    FROM_PICTURE = "from_picture"
    INPAINTED = "inpainted"
    WORKFLOW = "workflow"
    CAMERA = "camera"
    WATERMARK = "watermark"


class FileSays(StrEnum):
    """What a file says of its origin, all its findings together, for programs."""

    AI_SIGNED = "ai_signed"
    AI = "ai"
    PART_AI = "part_ai"
    POSSIBLY_AI = "possibly_ai"
    CONTRADICTION = "contradiction"
    CAPTURED = "captured"
    CAMERA = "camera"
    CAMERA_DOUBTFUL = "camera_doubtful"
    SCREENSHOT = "screenshot"
    SEAL_CHANGED = "seal_changed"
    SEAL_UNREADABLE = "seal_unreadable"
    NOTHING = "nothing"


class Seal(StrEnum):
    """Whether a file is as its C2PA manifest was signed for, and by whom."""

    TRUSTED = "trusted"
    UNKNOWN_SIGNER = "unknown_signer"
    EXPIRED = "expired"
    IRREGULAR = "irregular"
    CHANGED = "changed"
    UNREADABLE = "unreadable"

    @property
    def is_unbroken(self) -> bool:
        """Whether neither the file nor the manifest was changed after signing."""
        return self not in {Seal.CHANGED, Seal.UNREADABLE}


@dataclass(frozen=True)
class Camera:
    """What EXIF data say of the camera; each "" where they say nothing.

    Attributes:
        taken: Date and time as the file writes them: "2024:05:17 12:30:00".
        exposure: "1/100 s, f/2.8, ISO 100".
        doubts: Why the data may not belong to this picture, or not be whole, one sentence each.
    """

    make: str = ""
    model: str = ""
    taken: str = ""
    exposure: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Make and model; many models begin with their make ("NIKON CORPORATION", "NIKON D750")."""
        if self.model.lower().startswith(self.make.lower().split(" ")[0]):
            return self.model
        return f"{self.make} {self.model}".strip()


@dataclass(frozen=True)
class Finding:
    """One piece of evidence.

    Attributes:
        kind: "C2PA", "IPTC", "EXIF", "label", "generator" or "watermark".
        speaks_for: "Fake", "Real", or None where it speaks for neither.
        claim: What the file says of itself, to follow "The file says it was", or "".
        forgery: What it would take to forge it, one sentence.
        generator: The program or service that it names as the picture's maker, or "".
        seal: State of the signature that vouches for it, None where nothing is signed.
        signer: Who signed, or "".
        known_by: The list of trusted signers that knows the signer, or the issuer of an expired
            seal: "c2pa", "cai" (Content Authenticity Initiative), "own", or "".
        expired_on: When the seal expired, "2026-01-13", or "".
        failures: The codes of the C2PA standard for what does not hold in the seal.
        actions: The edit history of a C2PA manifest, oldest first: "created", "cropped", …
        ingredients: Files that a C2PA manifest says were used: "parentOf photo.jpg".
        model: The generator's model as the file names it, without folder and extension, or "".
        prompt: What the generator was told, or "".
        field: Where it stands: "parameters", "EXIF UserComment", "XMP", …, or "".
        from_picture: What says that the picture was made from another: "img2img", "LoadImage", …
    """

    code: Code
    kind: str
    text: str
    speaks_for: str | None = None
    claim: str = ""
    forgery: str = EDITABLE
    generator: str = ""
    seal: Seal | None = None
    signer: str = ""
    known_by: str = ""
    expired_on: str = ""
    failures: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    model: str = ""
    prompt: str = ""
    field: str = ""
    from_picture: str = ""
    camera: Camera | None = None


def made_with(
    program: str, kind: str, text: str, *, code: Code = Code.GENERATOR, **facts: Any
) -> Finding:
    """A finding that says which program or service made the picture."""
    claim = Message("claim.made_with", tool=program)
    facts = {"claim": claim, "generator": program, **facts}
    return Finding(code, kind, text, POSITIVE_CLASS, **facts)


_INPAINTING = re.compile(r"inpaint|outpaint|infill|mask", re.I)


def describe_input(how: str, *, kind: str, field: str, seal: Seal | None = None) -> list[Finding]:
    """A finding that says that a generator was given a picture; [] if it was not.

    Args:
        how: What says so: "img2img", "LoadImage", …, or "".
    """
    if not how:
        return []
    how = clean(how)
    code = Code.INPAINTED if _INPAINTING.search(how) else Code.FROM_PICTURE
    text = Message(f"finding.{code}", how=how)
    return [Finding(code, kind, text, field=field, from_picture=how, seal=seal)]


@dataclass(frozen=True)
class Origin:
    """What a file's findings say together.

    Attributes:
        says: The same as the headline, for programs.
        speaks_for: "Fake", "Real", or None where the findings speak for neither or for both.
        forgery: What it would take to forge it, one sentence, or "" without findings.
        generator: Who is named as the maker, with the model: "ComfyUI, flux1-dev", or "".
        prompt: What the generator was told, or "".
        seal: State of the content credentials, None without any.
        history: Their edit history, oldest first: "created", "cropped", …; () if they do not hold.
        ingredients: Files that they say were used: "parentOf photo.jpg".
        camera: The camera that wrote an exposure into the file, or None.
        from_picture: What says that a generator made the picture from another, or "".
        composite: Whether a part of the picture is said to be generated.
        screenshot: Whether the file says that it shows a screen.
    """

    headline: str
    says: FileSays = FileSays.NOTHING
    speaks_for: str | None = None
    forgery: str = ""
    generator: str = ""
    prompt: str = ""
    seal: Seal | None = None
    history: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()
    camera: Camera | None = None
    from_picture: str = ""
    composite: bool = False
    screenshot: bool = False


def describe_origin(findings: Sequence[Finding]) -> Origin:
    """Put the findings of one file together.

    >>> describe_origin([]).headline
    'No origin data found; most downloaded pictures have none.'
    """
    fake = [finding for finding in findings if finding.speaks_for == POSITIVE_CLASS]
    # The one that names its model says most.
    named = sorted((f for f in fake if f.generator), key=lambda finding: not finding.model)
    generator = named[0].generator if named else ""
    headline, speaks_for, forgery = _headline(findings, generator)
    codes = {finding.code for finding in findings}
    sealed = next((finding for finding in findings if finding.seal), None)
    seal = sealed.seal if sealed else None
    kept = sealed if seal and seal.is_unbroken else None
    return Origin(
        headline,
        _conclude(findings),
        speaks_for,
        forgery,
        generator=", ".join(filter(None, [generator, named[0].model])) if named else "",
        prompt=next((finding.prompt for finding in fake if finding.prompt), ""),
        seal=seal,
        history=kept.actions if kept else (),
        ingredients=kept.ingredients if kept else (),
        camera=next((f.camera for f in findings if f.camera and f.camera.exposure), None),
        from_picture=next((f.from_picture for f in findings if f.from_picture), ""),
        composite=Code.COMPOSITE in codes,
        screenshot=Code.SCREENSHOT in codes,
    )


def _conclude(findings: Sequence[Finding]) -> FileSays:
    codes = {finding.code for finding in findings}
    seals = {finding.seal for finding in findings}
    fake, real = (
        [finding for finding in findings if finding.speaks_for == name and finding.claim]
        for name in CLASS_NAMES
    )
    whole = [finding for finding in fake if finding.code is not Code.COMPOSITE]
    trusted = any(finding.seal is Seal.TRUSTED for finding in whole)
    # A photograph into which something was generated is no contradiction; a trusted signer's label
    # of the whole stays signed.
    if Code.INPAINTED in codes and whole and not trusted:
        return FileSays.PART_AI
    if whole and real:
        return FileSays.CONTRADICTION
    if whole:
        return FileSays.AI_SIGNED if trusted else FileSays.AI
    if fake:
        return FileSays.PART_AI
    if Code.POSSIBLY_GENERATED in codes:
        return FileSays.POSSIBLY_AI
    # Camera data in a file that was changed after signing may have been put there then.
    if Seal.CHANGED in seals:
        return FileSays.SEAL_CHANGED
    if real:
        if any(finding.code is Code.CAPTURED for finding in real):
            return FileSays.CAPTURED
        doubtful = any(finding.camera and finding.camera.doubts for finding in real)
        return FileSays.CAMERA_DOUBTFUL if doubtful else FileSays.CAMERA
    if Code.SCREENSHOT in codes:
        return FileSays.SCREENSHOT
    return FileSays.SEAL_UNREADABLE if Seal.UNREADABLE in seals else FileSays.NOTHING


def _headline(findings: Sequence[Finding], generator: str) -> tuple[str, str | None, str]:
    """The sentence, the class that it speaks for, and what it would take to forge it.

    Args:
        generator: Who is named as the maker by any of the findings, or "".
    """
    if not findings:
        return Message("origin.nothing"), None, ""
    telling = [finding for finding in findings if finding.speaks_for and finding.claim]
    if not telling:
        return findings[0].text, None, findings[0].forgery
    first = telling[0]
    claim = first.claim
    if first.speaks_for == POSITIVE_CLASS and generator.lower() not in claim.lower():
        claim = Message("claim.with_tool", claim=claim, tool=generator)
    other = next((f for f in telling if f.speaks_for != first.speaks_for), None)
    if other:
        headline = Message("origin.contradiction", claim=claim, other=other.claim)
        return headline, None, first.forgery
    return Message("origin.says", claim=claim), first.speaks_for, first.forgery


def clean(text: str) -> str:
    """A hostile text as one short printable line."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_TEXT])
    return " ".join(printable.split())[:_LONGEST_TEXT]
