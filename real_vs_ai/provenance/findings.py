"""Findings of a file's origin, and the headline that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

EDITABLE = "Anyone can write, change or remove such metadata."
_LONGEST_TEXT = 120


class Code(StrEnum):
    """What a finding is, for programs."""

    CREDENTIALS = "content_credentials"
    GENERATED = "generated"
    COMPOSITE = "composite"
    CAPTURED = "captured"
    SCREENSHOT = "screenshot"
    SOURCE = "source"
    GENERATOR = "generator"
    CAMERA = "camera"


class Seal(StrEnum):
    """Whether a file is as its C2PA manifest was signed for, and by whom."""

    TRUSTED = "trusted"
    UNKNOWN_SIGNER = "unknown_signer"
    IRREGULAR = "irregular"
    CHANGED = "changed"
    UNREADABLE = "unreadable"

    @property
    def is_unbroken(self) -> bool:
        """Whether neither the file nor the manifest was changed after signing."""
        return self not in {Seal.CHANGED, Seal.UNREADABLE}


@dataclass(frozen=True)
class Finding:
    """One piece of evidence.

    Attributes:
        kind: "C2PA", "IPTC", "EXIF" or "generator".
        speaks_for: "Fake", "Real", or None where it speaks for neither.
        claim: What the file says of itself, to follow "The file says it was", or "".
        forgery: What it would take to forge it, one sentence.
        generator: The program or service that it names as the picture's maker, or "".
        seal: State of the signature that vouches for it, None where nothing is signed.
        signer: Who signed, or "".
        actions: The edit history of a C2PA manifest, oldest first: "created", "cropped", …
        ingredients: Files that a C2PA manifest says were used: "parentOf photo.jpg".
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
    actions: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """What a file's findings say together.

    Attributes:
        speaks_for: "Fake", "Real", or None where the findings speak for neither or for both.
        forgery: What it would take to forge it, one sentence, or "" without findings.
    """

    headline: str
    speaks_for: str | None = None
    forgery: str = ""


def describe_origin(findings: Sequence[Finding]) -> Origin:
    """Put the findings of one file into a headline.

    >>> describe_origin([]).headline
    'No origin data found; most downloaded pictures have none.'
    """
    if not findings:
        return Origin("No origin data found; most downloaded pictures have none.")
    telling = [finding for finding in findings if finding.speaks_for and finding.claim]
    if not telling:
        return Origin(findings[0].text, forgery=findings[0].forgery)
    first = telling[0]
    other = next((f for f in telling if f.speaks_for != first.speaks_for), None)
    if other:
        return Origin(
            f"The file contradicts itself: it says it was {first.claim}, and {other.claim}.",
            forgery=first.forgery,
        )
    return Origin(f"The file says it was {first.claim}.", first.speaks_for, first.forgery)


def clean(text: str) -> str:
    """A hostile text as one short printable line."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_TEXT])
    return " ".join(printable.split())[:_LONGEST_TEXT]
