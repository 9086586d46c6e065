"""Recognise generators and cameras by what they write into files."""

from __future__ import annotations

import re

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.provenance.findings import Code, Finding, clean

# Names of generators stand near a field's beginning; a bomb of text is not searched to its end.
_SEARCHED_CHARACTERS = 20_000
_SEARCHED_IN_ALL = 100_000
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
_SAMPLER_SETTINGS = re.compile(
    r"\bsteps: \d+, .{0,400}?\b(?:sampler|cfg scale|seed): ", re.I | re.S
)


def name_generator(text: str) -> str:
    """The first known generator that a text names, or ""."""
    return next((name for name, pattern in _GENERATOR_PATTERNS if pattern.search(text)), "")


def _searched_texts(fields: dict[str, str]) -> list[str]:
    """Each field's beginning, as long as there are not too many of them."""
    texts, left = [], _SEARCHED_IN_ALL
    for name, value in fields.items():
        texts.append(f"{name}: {value[: min(left, _SEARCHED_CHARACTERS)]}")
        left -= len(texts[-1])
        if left <= 0:
            break
    return texts


def find_generators(fields: dict[str, str]) -> list[Finding]:
    """Generators that the metadata name, or whose settings they hold."""
    texts = _searched_texts(fields)
    found = [
        (name, f"Its metadata name {name}.")
        for name, pattern in _GENERATOR_PATTERNS
        if any(pattern.search(text) for text in texts)
    ]
    if any(_SAMPLER_SETTINGS.search(text) for text in texts):
        text = "It carries a Stable Diffusion program's settings (steps, sampler, seed)."
        found.append(("Stable Diffusion", text))
    if any(_is_comfyui_graph(fields.get(name, "")) for name in ("prompt", "workflow")):
        found.append(("ComfyUI", "It carries a ComfyUI workflow."))
    return [
        Finding(
            Code.GENERATOR, "generator", text, POSITIVE_CLASS, f"made with {name}", generator=name
        )
        for name, text in found
    ]


def _is_comfyui_graph(text: str) -> bool:
    return text.lstrip().startswith("{") and ('"class_type"' in text or '"last_node_id"' in text)


def find_camera(fields: dict[str, str]) -> list[Finding]:
    """The camera that the EXIF data name."""
    make, model = fields.get("EXIF Make", ""), fields.get("EXIF Model", "")
    if not (make or model):
        return []
    name = model if model.lower().startswith(make.lower()) else f"{make} {model}"
    exposed = any(f"EXIF {tag}" in fields for tag in ("ExposureTime", "FNumber"))
    detail = " and an exposure" if exposed else ", but no exposure"
    speaks_for = "Real" if exposed else None
    text = f"Its EXIF data name a camera ({clean(name)}){detail}."
    claim = f"taken with a camera ({clean(name)})"
    return [Finding(Code.CAMERA, "EXIF", text, speaks_for, claim)]
