"""The IPTC's vocabulary of digital source types, which XMP and C2PA manifests use."""

from __future__ import annotations

import re
from dataclasses import replace

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.provenance.findings import Code, Finding, clean

# An honest file has one; a hostile file could name thousands.
_MOST_SOURCE_TYPES = 5
_SOURCE_TYPE = re.compile(r"digitalsourcetype/([A-Za-z]{3,60})", re.I)
_MEANINGS = {
    "trainedAlgorithmicMedia": (Code.GENERATED, "made by a generative model"),
    "compositeWithTrainedAlgorithmicMedia": (
        Code.COMPOSITE,
        "composed with a generative model's output",
    ),
    "compositeSynthetic": (Code.COMPOSITE, "composed of parts, some of them generated"),
    "algorithmicMedia": (Code.GENERATED, "made by an algorithm"),
    "digitalCapture": (Code.CAPTURED, "a photograph from a digital camera"),
    "computationalCapture": (Code.CAPTURED, "a photograph from a phone or computational camera"),
    "negativeFilm": (Code.CAPTURED, "digitised from a negative on film"),
    "positiveFilm": (Code.CAPTURED, "digitised from a positive on film"),
    "print": (Code.SOURCE, "digitised from a print"),
    "screenCapture": (Code.SCREENSHOT, "a picture of a screen"),
    "virtualRecording": (Code.SOURCE, "a recording of a virtual event"),
    "humanEdits": (Code.SOURCE, "edited by a person"),
    "minorHumanEdits": (Code.SOURCE, "edited slightly by a person"),
    "algorithmicallyEnhanced": (Code.SOURCE, "enhanced by an algorithm"),
    "composite": (Code.SOURCE, "composed of several elements"),
    "compositeCapture": (Code.SOURCE, "composed of several photographs"),
    "dataDrivenMedia": (Code.SOURCE, "drawn from data"),
    "digitalCreation": (Code.SOURCE, "made by a person with digital tools"),
    "digitalArt": (Code.SOURCE, "made by a person with digital tools"),
    "softwareImage": (Code.SOURCE, "made with software"),
}
_BY_LOWER_CASE = {name.lower(): name for name in _MEANINGS}
_SPEAKS_FOR = {
    Code.GENERATED: POSITIVE_CLASS,
    Code.COMPOSITE: POSITIVE_CLASS,
    Code.CAPTURED: "Real",
}


def named_source_types(text: str) -> list[str]:
    """The first few different source types whose addresses stand in a text."""
    found = (match[1] for match in _SOURCE_TYPE.finditer(text))
    known = dict.fromkeys(_BY_LOWER_CASE.get(name.lower(), name) for name in found)
    return list(known)[:_MOST_SOURCE_TYPES]


def describe_source_type(name: str, *, said_by: str, common: Finding) -> Finding:
    """What one source type says, with kind, seal, signer and forgery of `common`."""
    code, claim = _MEANINGS.get(name, (Code.SOURCE, ""))
    text = f"{said_by} says: {claim} ({name})." if claim else f"{said_by} is {clean(name)}."
    return replace(common, code=code, text=text, speaks_for=_SPEAKS_FOR.get(code), claim=claim)
