"""Read the settings that generators leave in files: prompt, model, input picture."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.fields import parse_object, xmp_property
from real_vs_ai.provenance.findings import Code, Finding, clean, describe_input, made_with
from real_vs_ai.provenance.labels import name_generator

_LONGEST_PROMPT = 10_000
_MOST_NODES = 5_000
_SEARCHED_CHARACTERS = 20_000
_SAMPLER_SETTINGS = re.compile(
    r"\bsteps: \d+, .{0,400}?\b(?:sampler|cfg scale|seed): ", re.I | re.S
)
_SETTINGS_FIELDS = (
    "parameters",
    "EXIF UserComment",
    "comment",
    "Comment",
    "EXIF ImageDescription",
    "Description",
    "XMP UserComment",
    "XMP description",
    "EXIF XPComment",
    "IPTC Caption",
)
_PICTURE_SETTING = re.compile(
    r"[,\n]\s{0,3}(Mask blur|Masked content|Inpaint[^:,\n]{0,40}|Outpaint[^:,\n]{0,40}"
    r"|IP-Adapter|ControlNet)[^:,\n]{0,40}: "
)
_XMP_PROPERTIES = ("UserComment", "description")
_NO_MODEL = frozenset({"none", "null", "unknown", "undefined", "n/a"})
_WEIGHTS = re.compile(r"\.(?:safetensors|ckpt|gguf|pth?|bin|sft)$", re.I)


@dataclass(frozen=True)
class Settings:
    """What a program was told to generate.

    Attributes:
        ran: Whether they are settings of a run, not only a template for one.
    """

    program: str
    field: str
    prompt: str = ""
    model: str = ""
    from_picture: str = ""
    ran: bool = True


def find_settings(fields: dict[str, str]) -> list[Finding]:
    """Programs whose settings stand in the fields, the first of each program."""
    properties = {f"XMP {name}": xmp_property(fields, name) for name in _XMP_PROPERTIES}
    fields = {**fields, **properties}
    by_program: dict[str, Settings] = {}
    for settings in itertools.chain(
        _comfyui(fields), _from_objects(fields), _invokeai(fields), _webui(fields)
    ):
        by_program.setdefault(settings.program, settings)
    return [finding for settings in by_program.values() for finding in _describe(settings)]


def _describe(settings: Settings) -> list[Finding]:
    model = clean(_WEIGHTS.sub("", re.split(r"[\\/]", settings.model[-300:])[-1]))
    # Some programs write the word for a model that they do not know.
    model = "" if model.lower() in _NO_MODEL else model
    field = settings.field
    if not settings.ran:
        text = Message("finding.workflow", tool=settings.program)
        return [Finding(Code.WORKFLOW, "generator", text, model=model, field=field)]
    form, names = "", {"tool": settings.program}
    if model:
        form, names = "_model", {**names, "model": model}
    made = made_with(
        settings.program,
        "generator",
        Message(f"finding.settings{form}", **names),
        claim=Message(f"claim.made_with{form}", **names),
        model=model,
        prompt=settings.prompt[:_LONGEST_PROMPT].strip(),
        field=field,
    )
    return [made, *describe_input(settings.from_picture, kind="generator", field=field)]


def _webui(fields: dict[str, str]) -> Iterator[Settings]:
    """Lines such as "Steps: 20, Sampler: Euler a, …", which many programs have taken over."""
    for name in _SETTINGS_FIELDS:
        text = fields.get(name, "")[:_SEARCHED_CHARACTERS]
        sampler = _SAMPLER_SETTINGS.search(text)
        if not sampler:
            continue
        line = text[sampler.start() :]
        prompt = re.split(r"\n?Negative prompt: ", text[: sampler.start()])[0]
        program = name_generator(_value(line, "Version")) or "Stable Diffusion"
        yield Settings(program, name, prompt, _value(line, "Model"), _webui_picture(line))


def _webui_picture(line: str) -> str:
    """What says that the picture was made from another."""
    strength = _value(line, "Denoising strength")
    # The second pass of "Hires. fix" has a strength too.
    if _is_partial(strength) and "Hires " not in line:
        return f"denoising strength {strength}"
    setting = _PICTURE_SETTING.search(line)
    return setting[1] if setting else ""


def _value(line: str, name: str) -> str:
    match = re.search(rf"(?:^|[,\n])\s{{0,3}}{name}: ([^,\n]{{1,200}})", line)
    return match[1].strip() if match else ""


def _is_partial(strength: object) -> bool:
    """Whether a strength leaves something of an input picture."""
    try:
        return 0 <= float(str(strength)) < 1
    except ValueError:
        return False


def _comfyui(fields: dict[str, str]) -> Iterator[Settings]:
    for name in _GRAPH_FIELDS:
        text = fields.get(name, "")
        nodes = _nodes(parse_object(text)) or _nodes_of_damaged(text[:_SEARCHED_CHARACTERS])
        if nodes:
            prompt = "\n".join(dict.fromkeys(_inputs(nodes, _PROMPT_INPUTS)))
            pictures = [kind for kind, _ in nodes if _INPUT_PICTURE.search(kind)]
            # What a picture was loaded for says more than that it was.
            pictures.sort(key=lambda kind: not _INPAINTS.search(kind))
            picture = next(iter(pictures), "")
            ran = any(_GENERATES.search(kind) for kind, _ in nodes)
            # A service's node has a name of its own; without a picture, it began with words.
            ran = ran or bool(prompt and not picture)
            model = next(_inputs(nodes, _MODEL_INPUTS), "")
            yield Settings("ComfyUI", name, prompt, model, picture, ran=ran)
    drawn = parse_object(fields.get("workflow", ""))
    if isinstance(drawn.get("nodes"), list) and "links" in drawn:
        yield Settings("ComfyUI", "workflow", ran=False)


_GRAPH_FIELDS = ("prompt", "EXIF UserComment", "EXIF ImageDescription", "parameters")
_GENERATES = re.compile(r"sampler(?!select)|empty\w*latent|image ?generat|txt2img|t2i|dalle", re.I)
_INPUT_PICTURE = re.compile(
    r"load ?image|image ?load|ip-?adapter|controlnet ?apply|img2img|inpaint"
    r"|latent ?noise ?mask",
    re.I,
)
_INPAINTS = re.compile(r"inpaint|noise ?mask", re.I)
_NODE_KIND = re.compile(r"\bclass_type\"?: ?\"?([^\",{}]{1,80})")
_NODE_INPUT = re.compile(r"\b(ckpt_name|unet_name)\"?: ?\"?([^\",{}]{1,200})")
_PROMPT_INPUTS = ("text", "text_g", "text_l", "clip_l", "t5xxl", "prompt", "positive")
_MODEL_INPUTS = ("ckpt_name", "unet_name", "gguf_name", "base_ckpt_name", "model_name")


def _nodes(graph: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Kind and inputs of each node of a graph."""
    return [
        (str(node["class_type"]), _object(node, "inputs"))
        for node in itertools.islice(graph.values(), _MOST_NODES)
        if isinstance(node, dict) and "class_type" in node
    ]


def _nodes_of_damaged(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The same of a graph that was cut off, or that lost its quotes on the way into EXIF."""
    if not text.startswith("{") or not (kinds := _NODE_KIND.findall(text)):
        return []
    named: list[tuple[str, dict[str, Any]]] = [(kind.strip(), {}) for kind in kinds]
    return [*named, ("", dict(_NODE_INPUT.findall(text)))]


def _inputs(nodes: list[tuple[str, dict[str, Any]]], names: tuple[str, ...]) -> Iterator[str]:
    """Texts among the inputs of the nodes, in the order of the names."""
    for name in names:
        for _, inputs in nodes:
            value = inputs.get(name)
            # Some loaders keep a preview beside the name.
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value.strip():
                yield value


def _from_objects(fields: dict[str, str]) -> Iterator[Settings]:
    """Settings that are a JSON object, by the keys that only one program writes."""
    every = ((name, parse_object(fields.get(name, ""))) for name in _OBJECT_FIELDS)
    objects = [(name, record) for name, record in every if record]
    # Easy Diffusion writes each setting into a text chunk of its own.
    for name, record in [*objects, ("PNG text", dict(fields))]:
        for program, keys, read in _PROGRAMS:
            if keys <= record.keys():
                yield Settings(program, name, *read(record, fields))


_OBJECT_FIELDS = tuple(dict.fromkeys((*_SETTINGS_FIELDS, "invokeai_metadata", "sd-metadata")))


# Each reader gives the prompt, the model, and what says that there was an input picture.
def _read_swarmui(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    record = _object(record, "sui_image_params")
    picture = _key_in_use(record, "initimage", "promptimages")
    picture = picture or ("initimagecreativity" if "initimagecreativity" in record else "")
    return _text(record, "prompt"), _text(record, "model"), picture


def _read_fooocus(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    return _text(record, "prompt", "Prompt"), _text(record, "base_model", "Base Model"), ""


def _read_draw_things(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    return _text(record, "c"), _text(record, "model"), _partial_strength(record)


def _read_easy_diffusion(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    model = _text(record, "use_stable_diffusion_model", "Stable Diffusion model")
    picture = _key_in_use(record, "init_image", "Init Image", "prompt_strength")
    return _text(record, "prompt", "Prompt"), model, picture


def _read_novelai(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    request = _text(record, "request_type") or _partial_strength(record)
    picture = "" if request == "PromptGenerateRequest" else request
    return _text(record, "prompt"), fields.get("Source", ""), picture


def _read_invokeai(record: dict[str, Any], fields: dict[str, Any]) -> tuple[str, str, str]:
    model = record.get("model")
    if isinstance(model, dict):
        model = model.get("name") or model.get("model_name")
    mode = _text(record, "generation_mode")
    picture = mode if re.search(r"img2img|inpaint|outpaint", mode) else ""
    picture = picture or _key_in_use(record, "init_image", "ipAdapters", "controlnets")
    return _text(record, "positive_prompt"), str(model or ""), picture


_PROGRAMS: tuple[tuple[str, frozenset[str], Callable[..., Any]], ...] = (
    ("SwarmUI", frozenset({"sui_image_params"}), _read_swarmui),
    ("Fooocus", frozenset({"base_model", "prompt"}), _read_fooocus),
    ("Fooocus", frozenset({"Base Model", "Prompt"}), _read_fooocus),
    ("Draw Things", frozenset({"c", "uc", "sampler"}), _read_draw_things),
    ("Easy Diffusion", frozenset({"use_stable_diffusion_model"}), _read_easy_diffusion),
    ("Easy Diffusion", frozenset({"Stable Diffusion model"}), _read_easy_diffusion),
    ("NovelAI", frozenset({"prompt", "uc", "steps"}), _read_novelai),
    ("InvokeAI", frozenset({"generation_mode"}), _read_invokeai),
    ("InvokeAI", frozenset({"positive_prompt", "model"}), _read_invokeai),
)


def _invokeai(fields: dict[str, str]) -> Iterator[Settings]:
    """The forms of InvokeAI's versions 1 and 2: "sd-metadata", and a line "Dream"."""
    older = parse_object(fields.get("sd-metadata", ""))
    image = _object(older, "image")
    if image:
        prompts = image.get("prompt")
        first = prompts[0] if isinstance(prompts, list) and prompts else prompts
        prompt = str(first.get("prompt", "")) if isinstance(first, dict) else str(first or "")
        picture = _text(image, "type") if _text(image, "type") in {"img2img", "inpaint"} else ""
        yield Settings("InvokeAI", "sd-metadata", prompt, _text(older, "model_weights"), picture)
    dream = fields.get("Dream", "")[:_SEARCHED_CHARACTERS]
    if found := re.match(r"\s*\"(.*?)\"\s+-", dream, re.S):
        options = dream[found.end() - 1 :]
        picture = "init image" if re.search(r"(?:^|\s)-I\s?\S", options) else ""
        yield Settings("InvokeAI", "Dream", found[1], from_picture=picture)


def _object(record: dict[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _text(record: dict[str, Any], *keys: str) -> str:
    """The first text under these keys, or ""."""
    values = map(record.get, keys)
    return next((value for value in values if value and isinstance(value, str)), "")


def _key_in_use(record: dict[str, Any], *keys: str) -> str:
    return next((key for key in keys if record.get(key)), "")


def _partial_strength(record: dict[str, Any]) -> str:
    strength = record.get("strength", 1)
    return f"strength {strength}" if _is_partial(strength) else ""
