"""Read what a file says about its own origin.

Metadata is easily removed or forged, so findings never change the verdict.
Do not trust any field: each is read within limits, never followed (no network), and cut to a line
of printable text.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import ExifTags, Image

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.images import DECODER_ERRORS, readable_formats

# Metadata stands at a file's beginning, or (PNG, WebP) at its end.
_SEARCHED_BYTES = 2 * 2**20
_LONGEST_FIELD = 1_000_000
# Names of generators stand near a field's beginning; a bomb of text is not searched to its end.
_SEARCHED_CHARACTERS = 20_000
_SEARCHED_IN_ALL = 100_000
_MOST_SOURCE_TYPES = 5
_LONGEST_EXIF_BYTES = 2**20
_MOST_EXIF_VALUES = 100
_MOST_FIELDS = 200
_LONGEST_TEXT = 120
_AI_SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "made by a generative model",
    "compositeWithTrainedAlgorithmicMedia": "composed with a generative model's output",
    "algorithmicMedia": "made by an algorithm",
}
_CAMERA_SOURCE_TYPES = {
    "digitalCapture": "a photograph from a digital camera",
    "computationalCapture": "a photograph from a phone or computational camera",
}
# A name alone proves little in prose, so only metadata fields are searched for these.
_GENERATORS = (
    ("Stable Diffusion", r"stable[ _-]?diffusion|sd[_-]metadata|automatic1111|\bsdxl\b|invokeai"),
    ("ComfyUI", r"comfyui"),
    ("NovelAI", r"novelai"),
    ("Midjourney", r"midjourney|\bjob id: [0-9a-f]{8}-"),
    ("DALL·E or ChatGPT", r"dall[-· ]?e\b|\bopenai\b|\bchatgpt\b|gpt-image"),
    ("Adobe Firefly", r"\bfirefly\b"),
    (
        "Google AI (Gemini, Imagen; its images carry a SynthID watermark)",
        r"made with google ai|\bgemini\b|\bimagen\b|synthid|google generative ai",
    ),
    ("FLUX", r"black forest labs|\bflux\.?1\b|\bflux[ _-](?:dev|pro|schnell)\b"),
    ("Ideogram", r"\bideogram\b"),
    ("Leonardo AI", r"leonardo\.?ai"),
    ("Grok", r"\bgrok\b|\bx\.?ai\b"),
    ("Microsoft Designer or Bing Image Creator", r"bing image creator|microsoft designer"),
)
_GENERATOR_PATTERNS = tuple((name, re.compile(text, re.I)) for name, text in _GENERATORS)
_EDITABLE = "Anyone can write, change or remove such metadata."
_FORGERY = {
    "Trusted": "To forge it, one would need the signer's private key.",
    "Valid": "Anyone can sign with a certificate of their own: check who the signer is.",
}
_BROKEN_SEAL = "It does not fit the file, so it proves nothing."
_SOURCE_TYPE = re.compile(r"digitalsourcetype/([A-Za-z]{3,60})", re.I)
_SAMPLER_SETTINGS = re.compile(
    r"\bsteps: \d+, .{0,400}?\b(?:sampler|cfg scale|seed): ", re.I | re.S
)
# What damaged metadata makes Pillow, its plugins and the JSON parser raise.
_DAMAGE = (*DECODER_ERRORS, Image.DecompressionBombError)


@dataclass(frozen=True)
class Finding:
    """One piece of evidence.

    Attributes:
        kind: "C2PA", "IPTC", "EXIF" or "generator".
        speaks_for: "Fake", "Real", or None where it speaks for neither.
        claim: What the file says of itself, to follow "The file says it was", or "".
        forgery: What it would take to forge it, one sentence.
    """

    kind: str
    text: str
    speaks_for: str | None = None
    claim: str = ""
    forgery: str = _EDITABLE


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


def read_provenance(data: bytes) -> tuple[Finding, ...]:
    """What a file's metadata says of its origin, the strongest evidence first; () if unreadable."""
    c2pa_findings, c2pa_texts = _read_c2pa(data)
    fields = dict(itertools.islice(_metadata_fields(data), _MOST_FIELDS))
    texts = _searched_texts(fields)
    return (
        *c2pa_findings,
        *_describe_source_types(
            _named_source_types(fields.get("XMP", "")),
            kind="IPTC",
            said_by="Its IPTC digital source type",
        ),
        *_generator_traces(fields, [*texts, *c2pa_texts]),
        *_camera(fields),
    )


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


def _searched_texts(fields: dict[str, str]) -> list[str]:
    """Each field's beginning, as long as there are not too many of them."""
    texts, left = [], _SEARCHED_IN_ALL
    for name, value in fields.items():
        texts.append(f"{name}: {value[: min(left, _SEARCHED_CHARACTERS)]}")
        left -= len(texts[-1])
        if left <= 0:
            break
    return texts


def _read_c2pa(data: bytes) -> tuple[list[Finding], list[str]]:
    """Findings of a C2PA manifest, and its texts to look for generators' names in."""
    # The library is native code: only files that carry a manifest store are given to it.
    if b"c2pa" not in data or b"jumb" not in data:
        return [], []
    context = _c2pa_context()
    if context is None:
        text = "It carries a C2PA manifest, which was not read: c2pa-python is not installed."
        return [Finding("C2PA", text, forgery="")], []
    import c2pa

    try:
        with c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
            state = reader.get_validation_state() or "Invalid"
            store = json.loads(reader.json())
        manifest = store["manifests"][store["active_manifest"]]
        return _describe_manifest(manifest, state=state), [json.dumps(_agents(manifest))]
    except (c2pa.C2paError, *_DAMAGE):
        text = "It carries a C2PA manifest that is damaged."
        return [Finding("C2PA", text, forgery=_BROKEN_SEAL)], []


@functools.cache
def _c2pa_context():
    try:
        import c2pa
    except ImportError:
        return None
    # A manifest must not make this machine ask other ones.
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    return c2pa.Context(c2pa.Settings.from_dict(offline))


def _describe_manifest(manifest: dict, *, state: str) -> list[Finding]:
    signature = manifest.get("signature_info") or {}
    signer = _clean(str(signature.get("common_name") or signature.get("issuer") or "unknown"))
    meaning = {
        "Trusted": "it is valid and its signer is trusted",
        "Valid": "it is valid, its signer is on no list of trusted ones here",
    }.get(state, "it does NOT fit the file, which was changed after signing")
    forgery = _FORGERY.get(state, _BROKEN_SEAL)
    findings = [Finding("C2PA", f"C2PA manifest signed by {signer}: {meaning}.", forgery=forgery)]
    # Of a manifest that fits another file, the file's origin cannot be learnt.
    if state in {"Trusted", "Valid"}:
        kinds = _named_source_types(json.dumps(_agents(manifest)))
        findings += _describe_source_types(
            kinds, kind="C2PA", said_by="Its C2PA manifest", forgery=forgery
        )
    return findings


def _agents(manifest: dict) -> list:
    """The parts of a manifest that name tools and source types."""
    actions = [
        assertion.get("data")
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
    ]
    return [manifest.get("claim_generator"), manifest.get("claim_generator_info"), *actions]


def _named_source_types(text: str) -> list[str]:
    """The first few different ones: an honest file has one."""
    found = dict.fromkeys(match[1] for match in _SOURCE_TYPE.finditer(text))
    return list(found)[:_MOST_SOURCE_TYPES]


def _describe_source_types(
    kinds: list[str], *, kind: str, said_by: str, forgery: str = _EDITABLE
) -> list[Finding]:
    findings = []
    for name in kinds:
        claim = _AI_SOURCE_TYPES.get(name) or _CAMERA_SOURCE_TYPES.get(name)
        if claim:
            speaks_for = POSITIVE_CLASS if name in _AI_SOURCE_TYPES else "Real"
            text = f"{said_by} says: {claim} ({name})."
            findings.append(Finding(kind, text, speaks_for, claim, forgery))
        else:
            findings.append(Finding(kind, f"{said_by} is {_clean(name)}.", forgery=forgery))
    return findings


def _generator_traces(fields: dict[str, str], texts: list[str]) -> list[Finding]:
    found = [
        (f"Its metadata name {name}.", f"made with {name}")
        for name, pattern in _GENERATOR_PATTERNS
        if any(pattern.search(text) for text in texts)
    ]
    if any(_SAMPLER_SETTINGS.search(text) for text in texts):
        text = "It carries a Stable Diffusion program's settings (steps, sampler, seed)."
        found.append((text, "made with Stable Diffusion"))
    if any(_is_comfyui_graph(fields.get(name, "")) for name in ("prompt", "workflow")):
        found.append(("It carries a ComfyUI workflow.", "made with ComfyUI"))
    return [Finding("generator", text, POSITIVE_CLASS, claim) for text, claim in found]


def _is_comfyui_graph(text: str) -> bool:
    return text.lstrip().startswith("{") and ('"class_type"' in text or '"last_node_id"' in text)


def _camera(fields: dict[str, str]) -> list[Finding]:
    make, model = fields.get("EXIF Make", ""), fields.get("EXIF Model", "")
    if not (make or model):
        return []
    name = model if model.lower().startswith(make.lower()) else f"{make} {model}"
    exposed = any(f"EXIF {tag}" in fields for tag in ("ExposureTime", "FNumber"))
    detail = " and an exposure" if exposed else ", but no exposure"
    speaks_for = "Real" if exposed else None
    text = f"Its EXIF data name a camera ({_clean(name)}){detail}."
    return [Finding("EXIF", text, speaks_for, f"taken with a camera ({_clean(name)})")]


def _metadata_fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and texts of a file's metadata, each at most `_LONGEST_FIELD` characters long."""
    xmp = _xmp_packet(data[:_SEARCHED_BYTES]) or _xmp_packet(data[-_SEARCHED_BYTES:])
    if xmp:
        yield "XMP", xmp.decode("utf-8", "replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
                yield from _text_fields(image)
                yield from _exif_fields(image)
    except _DAMAGE:
        return


def _xmp_packet(data: bytes) -> bytes:
    start = data.find(b"<x:xmpmeta")
    end = data.find(b"</x:xmpmeta>", start, start + _LONGEST_FIELD) if start >= 0 else -1
    return data[start:end] if end >= 0 else b""


def _text_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    for name, value in image.info.items():
        if isinstance(name, str) and name not in {"exif", "icc_profile", "xmp"}:
            if isinstance(value, bytes):
                value = value[:_LONGEST_FIELD].decode("utf-8", "replace")
            if isinstance(value, str):
                yield name[:_LONGEST_TEXT], value[:_LONGEST_FIELD]


def _exif_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    if len(image.info.get("exif", b"")) > _LONGEST_EXIF_BYTES:
        return
    exif = image.getexif()
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        for tag, value in tags.items():
            name = ExifTags.TAGS.get(tag)
            if name:
                yield f"EXIF {name}", _exif_text(value)


def _exif_text(value: object) -> str:
    if isinstance(value, tuple):
        value = value[:_MOST_EXIF_VALUES]
    if not isinstance(value, bytes):
        return str(value)[:_LONGEST_FIELD].strip()
    # A user comment begins with its encoding's name; programs disagree on the bytes' order.
    encoding = "utf-16-be" if value[:7] == b"UNICODE" else "utf-8"
    text = value[8:] if value[:7] in (b"UNICODE", b"ASCII\0\0") else value
    if encoding == "utf-16-be" and text[1:2] == b"\0":
        encoding = "utf-16-le"
    return text[:_LONGEST_FIELD].decode(encoding, "replace").strip("\0 ")


def _clean(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST_TEXT])
    return " ".join(printable.split())[:_LONGEST_TEXT]
