"""Read the labels of standards: IPTC source types, IPTC properties for AI, China's GB 45438."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.provenance.fields import parse_object, xmp_property
from real_vs_ai.provenance.findings import Code, Finding, clean
from real_vs_ai.provenance.names import name_generator

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
_CHINESE_LABELS = {"1": "generated", "2": "possibly generated", "3": "suspected to be generated"}
_CHINESE_NAMESPACE = "tc260.org.cn/ns/AIGC"
_CHINESE_FIELDS = ("AIGC", "EXIF UserComment", "EXIF ImageDescription", "comment", "Description")
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
    """What one source type says, with kind, seal, signer and forgery of `common`.

    Args:
        name: Of the vocabulary; "" where a generator is named as the maker instead.
    """
    code, claim = _MEANINGS.get(name or "trainedAlgorithmicMedia", (Code.SOURCE, ""))
    term = f" ({name})" if name else ""
    text = f"{said_by} says: {claim}{term}." if claim else f"{said_by} is {clean(name)}."
    return replace(common, code=code, text=text, speaks_for=_SPEAKS_FOR.get(code), claim=claim)


def find_labels(fields: dict[str, str]) -> list[Finding]:
    """What the labels say that standards and laws ask generators to write."""
    said_by = "Its IPTC digital source type"
    common = Finding(Code.SOURCE, "IPTC", "", field="XMP")
    # Some programs write the term without its address.
    bare = f"digitalsourcetype/{xmp_property(fields, 'DigitalSourceType')}"
    types = named_source_types(fields.get("XMP", "")) or named_source_types(bare)
    return [
        *(describe_source_type(name, said_by=said_by, common=common) for name in types),
        *_iptc_system(fields),
        *_chinese_label(fields),
    ]


def _iptc_system(fields: dict[str, str]) -> list[Finding]:
    """The properties for AI of the IPTC Photo Metadata Standard 2025.1."""
    system, version, prompt = (
        xmp_property(fields, name)
        for name in ("AISystemUsed", "AISystemVersionUsed", "AIPromptInformation")
    )
    if not (system or prompt):
        return []
    named = " ".join(clean(f"{system} {version}").split()) or "an AI system that it does not name"
    return [
        Finding(
            Code.GENERATOR,
            "IPTC",
            f"Its IPTC properties say that {named} was used.",
            POSITIVE_CLASS,
            f"made with {named}",
            generator=name_generator(system) or clean(system),
            prompt=prompt,
            field="XMP",
        )
    ]


def _chinese_label(fields: dict[str, str]) -> list[Finding]:
    """The implicit label of China's standard GB 45438-2025: JSON in a text, or XMP properties."""
    for name, label in _chinese_forms(fields):
        certainty = _CHINESE_LABELS.get(str(label.get("Label", "")))
        if not certainty:
            continue
        producer = clean(str(label.get("ContentProducer", "")))
        by = f" by {producer}" if producer else ""
        generated = certainty == "generated"
        return [
            Finding(
                Code.GENERATED if generated else Code.POSSIBLY_GENERATED,
                "label",
                f"Its label by China's standard GB 45438 says: {certainty} by AI{by}.",
                POSITIVE_CLASS if generated else None,
                f"generated by AI{by}" if generated else "",
                generator=name_generator(producer) or producer,
                field=name,
            )
        ]
    return []


def _chinese_forms(fields: dict[str, str]) -> Iterator[tuple[str, dict]]:
    """Where the label may stand, and what stands there."""
    yield "XMP", _chinese_object(xmp_property(fields, "AIGC"))
    for name in _CHINESE_FIELDS:
        yield name, _chinese_object(fields.get(name, ""))
    if _CHINESE_NAMESPACE in fields.get("XMP", ""):
        names = ("Label", "ContentProducer")
        yield "XMP", {name: xmp_property(fields, name) for name in names}


def _chinese_object(text: str) -> dict:
    label = parse_object(text)
    return label["AIGC"] if isinstance(label.get("AIGC"), dict) else label
