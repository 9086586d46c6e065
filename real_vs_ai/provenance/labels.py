"""Read the labels of standards and the names of generators.

The labels are IPTC source types, IPTC properties for AI, and those of China's GB 45438.
`generators.toml` holds the names and the source types.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.fields import parse_object, xmp_property
from real_vs_ai.provenance.findings import Code, Finding, clean, made_with

# Names of generators stand near a field's beginning; a bomb of text is not searched to its end.
_SEARCHED_CHARACTERS = 20_000
_SEARCHED_IN_ALL = 100_000


_TABLE = tomllib.loads(Path(__file__).with_name("generators.toml").read_text(encoding="utf-8"))
# Other programs' settings hold people's words.
_LEFT_OUT = frozenset({"prompt", "workflow"})
# Texts are searched in lower case: that is faster than to ignore the case.
_MADE_WITH = re.compile(
    r"\b(?:made|generated|created|imagined|drawn|produced|rendered)\W{1,3}"
    r"(?:with|by|using)\W{1,3}(?:the )?"
)
# A name follows such a phrase within two words.
_WORDS_LATER = 30
_MOST_PHRASES = 20
_AS_MAKER = {
    one["name"]: re.compile("|".join(one[key] for key in ("common", "distinctive") if key in one))
    for one in _TABLE["generators"]
}
_DISTINCTIVE = {
    one["name"]: re.compile(one["distinctive"])
    for one in _TABLE["generators"]
    if "distinctive" in one
}
# Fields that programs fill; a person's name, a credit or a caption may hold such words by chance.
_MAKER_FIELDS = frozenset(
    {"software", "source", "generator", "model", "ai_model", "exif software"}
    | {"iptc originatingprogram"}
)
_MAKER_PROPERTIES = ("CreatorTool", "AISystemUsed", "softwareAgent")
# xAI signs each picture in the description and writes a random name for the artist.
_XAI_SIGNATURE = re.compile(r"Signature: ?[A-Za-z0-9+/=]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


def name_generator(maker: str) -> str:
    """The first known generator in a text that names a maker, or "".

    >>> name_generator("Adobe Firefly"), name_generator("Adobe Photoshop 26.1")
    ('Adobe Firefly', '')
    """
    return next(iter(_search(_AS_MAKER, maker.lower())), "")


def _search(patterns: Mapping[str, re.Pattern[str]], text: str) -> Iterator[str]:
    return (name for name, pattern in patterns.items() if pattern.search(text))


def find_names(fields: dict[str, str], *, read: Collection[str]) -> list[Finding]:
    """Generators that the metadata name as the picture's maker.

    Args:
        read: Fields whose settings were read: a prompt may mention another generator.
    """
    fields = {name: text for name, text in fields.items() if name not in {*read, *_LEFT_OUT}}
    found: dict[str, str] = {}
    for field, text in _searched_texts(fields):
        is_maker = field.startswith("XMP ") or field.lower() in _MAKER_FIELDS
        for name in _search(_AS_MAKER, text) if is_maker else _names_in_prose(text):
            found.setdefault(name, field)
    if _is_signed_by_xai(fields):
        found.setdefault("Grok", "EXIF ImageDescription")
    return [made_with(name, "generator", _named(name), field=found[name]) for name in found]


def _named(generator: str) -> Message:
    # Google's pictures carry a watermark of their own.
    key = "finding.name_synthid" if generator == "Google AI" else "finding.name"
    return Message(key, tool=generator)


def _searched_texts(fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each field and its beginning, in lower case, as long as there are not too many."""
    properties = [(f"XMP {name}", xmp_property(fields, name)) for name in _MAKER_PROPERTIES]
    left = _SEARCHED_IN_ALL
    for field, text in [*properties, *fields.items()]:
        cut = text[: min(left, _SEARCHED_CHARACTERS)]
        # A field's own name may tell: "sd-metadata", "fooocus_scheme".
        yield field, f"{field}: {cut}".lower()
        left -= len(cut)
        if left <= 0:
            return


def _names_in_prose(text: str) -> Iterator[str]:
    yield from _search(_DISTINCTIVE, text)
    for phrase in itertools.islice(_MADE_WITH.finditer(text), _MOST_PHRASES):
        yield from _search(_AS_MAKER, text[phrase.end() : phrase.end() + _WORDS_LATER])


def _is_signed_by_xai(fields: dict[str, str]) -> bool:
    signed = any(
        _XAI_SIGNATURE.match(fields.get(f"EXIF {name}", "")[:200])
        for name in ("ImageDescription", "UserComment")
    )
    return signed and bool(_UUID.fullmatch(fields.get("EXIF Artist", "")))


# An honest file has one; a hostile file could name thousands.
_MOST_SOURCE_TYPES = 5
_SOURCE_TYPE = re.compile(r"digitalsourcetype/([A-Za-z]{3,60})", re.I)
_MEANINGS = {term: Code(code) for code, terms in _TABLE["source_types"].items() for term in terms}
_CHINESE_LABELS = frozenset({"1", "2", "3"})
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
    known = dict.fromkeys(str(_BY_LOWER_CASE.get(name.lower(), name)) for name in found)
    return list(known)[:_MOST_SOURCE_TYPES]


def describe_source_type(name: str, *, said_by: Message, common: Finding) -> Finding:
    """What one source type says, with kind, seal, signer and forgery of `common`.

    Args:
        name: Of the vocabulary; "" where a generator is named as the maker instead.
        common: Its generator counts for types that a generator makes.
    """
    meant = name or "trainedAlgorithmicMedia"
    code = _MEANINGS.get(meant)
    if code is None:
        text = Message("finding.is_term", source=said_by, term=clean(name))
        return replace(common, code=Code.SOURCE, text=text, claim="", generator="")
    claim = Message(f"claim.{meant}")
    generator = common.generator if code in {Code.GENERATED, Code.COMPOSITE} else ""
    if generator:
        claim = Message("claim.with_tool", claim=claim, tool=generator)
    key = "finding.says_term" if name else "finding.says"
    text = Message(key, source=said_by, claim=claim, **{"term": name} if name else {})
    speaks_for = _SPEAKS_FOR.get(code)
    return replace(
        common, code=code, text=text, claim=claim, generator=generator, speaks_for=speaks_for
    )


def find_labels(fields: dict[str, str]) -> list[Finding]:
    """What the labels say that standards and laws ask generators to write."""
    said_by = Message("finding.source_type")
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
    named = " ".join(clean(f"{system} {version}").split()) or Message("finding.unnamed_system")
    text = Message("finding.system", tool=named)
    generator = name_generator(system) or clean(system)
    return [made_with(named, "IPTC", text, generator=generator, prompt=prompt, field="XMP")]


def _chinese_label(fields: dict[str, str]) -> list[Finding]:
    """The implicit label of China's standard GB 45438-2025: JSON in a text, or XMP properties."""
    for name, label in _chinese_forms(fields):
        degree = str(label.get("Label", ""))
        if degree not in _CHINESE_LABELS:
            continue
        producer = clean(str(label.get("ContentProducer", "")))
        form, by = ("chinese_by", {"producer": producer}) if producer else ("chinese", {})
        certainty = Message(f"finding.chinese_{degree}")
        generated = degree == "1"
        return [
            Finding(
                Code.GENERATED if generated else Code.POSSIBLY_GENERATED,
                "label",
                Message(f"finding.{form}", certainty=certainty, **by),
                POSITIVE_CLASS if generated else None,
                Message(f"claim.{form}", **by) if generated else "",
                generator=name_generator(producer) or producer,
                field=name,
            )
        ]
    return []


def _chinese_forms(fields: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the label may stand, and what stands there."""
    yield "XMP", _chinese_object(xmp_property(fields, "AIGC"))
    for name in _CHINESE_FIELDS:
        yield name, _chinese_object(fields.get(name, ""))
    if _CHINESE_NAMESPACE in fields.get("XMP", ""):
        names = ("Label", "ContentProducer")
        yield "XMP", {name: xmp_property(fields, name) for name in names}


def _chinese_object(text: str) -> dict[str, Any]:
    label = parse_object(text)
    return label["AIGC"] if isinstance(label.get("AIGC"), dict) else label
