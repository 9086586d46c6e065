"""What generators write into files is found and named, in every form and format."""

from __future__ import annotations

import json
import zlib

import pytest

from real_vs_ai.provenance import Code, describe_origin, read_provenance
from tests.provenance.files import (
    in_comment,
    png_with,
    with_exif,
    with_iptc,
    with_late_text,
    with_xmp,
)
from tests.serving.trivial_model import encode, uniform_image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
WEBUI = (
    "a red fox, film grain\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x768, Model: dreamshaper_8"
)


def origin_of(data):
    return describe_origin(read_provenance(data))


def graph(*nodes: tuple[str, dict]) -> str:
    """A ComfyUI graph as it was run."""
    return json.dumps(
        {str(i): {"class_type": kind, "inputs": values} for i, (kind, values) in enumerate(nodes)}
    )


SAMPLER = ("KSampler", {"seed": 1, "denoise": 1.0, "positive": ["1", 0]})
CHECKPOINT = ("CheckpointLoaderSimple", {"ckpt_name": "SDXL\\juggernaut_x.safetensors"})
FLUX = ("UNETLoader", {"unet_name": "flux/flux1-dev.sft", "weight_dtype": "default"})
TEXT = ("CLIPTextEncode", {"text": "a red fox", "clip": ["4", 1]})
LOAD = ("LoadImage", {"image": "photo.png"})
SWARM = {"prompt": "a red fox", "model": "OfficialStableDiffusion/sd_xl_base_1.0", "seed": 1}
FOOOCUS = {"prompt": "a red fox", "base_model": "juggernautXL_v8.safetensors", "seed": "1"}
NOVELAI = {"prompt": "a red fox", "steps": 28, "uc": "blurry", "strength": 1.0, "sampler": "k"}
DRAW_THINGS = {"c": "a red fox", "uc": "", "model": "flux_1_dev_q8p.ckpt", "sampler": "Euler"}
EASY = {"prompt": "a red fox", "use_stable_diffusion_model": "sd-v1-5", "seed": "1"}
INVOKE = {
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a red fox",
    "model": {"name": "Juggernaut XL", "base": "sdxl"},
}
INVOKE_2 = {"model_weights": "sd-1.5", "image": {"type": "txt2img", "prompt": "a red fox"}}


def list_of_alternatives(text: str) -> str:
    """An XMP element for a text that may stand in several languages."""
    quoted = text.replace('"', "&quot;")
    item = f"<rdf:Alt><rdf:li xml:lang='x-default'>{quoted}</rdf:li></rdf:Alt>"
    return f"<exif:UserComment>{item}</exif:UserComment>"


PREVIEWED = ("Loader", {"ckpt_name": {"content": "a.gguf", "image": None}})
REQUESTED = json.dumps(NOVELAI | {"request_type": "PromptGenerateRequest"})
FLUX_RUN = graph(FLUX, TEXT, SAMPLER)
SDXL_RUN = graph(CHECKPOINT, TEXT, SAMPLER)


@pytest.mark.parametrize(
    ("data", "generator"),
    [
        (png_with(parameters=WEBUI), "Stable Diffusion, dreamshaper_8"),
        (png_with(parameters=WEBUI + ", Version: Fooocus v2.5.5"), "Fooocus, dreamshaper_8"),
        (png_with(prompt=SDXL_RUN), "ComfyUI, juggernaut_x"),
        (in_comment(FLUX_RUN), "ComfyUI, flux1-dev"),
        (png_with(prompt=graph(FLUX, TEXT, ("SamplerCustomAdvanced", {}))), "ComfyUI, flux1-dev"),
        (with_exif("WEBP", Make="workflow:{}", Model="prompt:" + FLUX_RUN), "ComfyUI, flux1-dev"),
        (with_exif(UserComment=SDXL_RUN.encode()), "ComfyUI, juggernaut_x"),
        (png_with(prompt=graph(PREVIEWED, TEXT, SAMPLER)), "ComfyUI, a"),
        (png_with(prompt=graph(("GeminiNode", {"prompt": "a red fox"}))), "ComfyUI"),
        (png_with(invokeai_metadata=json.dumps(INVOKE)), "InvokeAI, Juggernaut XL"),
        (png_with(**{"sd-metadata": json.dumps(INVOKE_2)}), "InvokeAI, sd-1.5"),
        (png_with(Dream='"a red fox" -s 50 -S 42 -W 512 -H 512 -C 7.5'), "InvokeAI"),
        (
            png_with(Source="NovelAI Diffusion V4", Comment=REQUESTED),
            "NovelAI, NovelAI Diffusion V4",
        ),
        (
            png_with(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"),
            "Fooocus, juggernautXL_v8",
        ),
        (png_with(parameters=json.dumps({"sui_image_params": SWARM})), "SwarmUI, sd_xl_base_1.0"),
        (with_xmp(f"exif:UserComment='{json.dumps(DRAW_THINGS)}'"), "Draw Things, flux_1_dev_q8p"),
        (
            with_xmp(list_of_alternatives(json.dumps(DRAW_THINGS)), "PNG"),
            "Draw Things, flux_1_dev_q8p",
        ),
        (png_with(**EASY), "Easy Diffusion, sd-v1-5"),
        (in_comment(json.dumps(EASY)), "Easy Diffusion, sd-v1-5"),
    ],
)
def test_settings_name_program_model_and_prompt(data, generator):
    origin = origin_of(data)
    assert (origin.generator, origin.speaks_for) == (generator, "Fake")
    # The prompt of the web UI ends before the negative one.
    assert origin.prompt.removesuffix(", film grain") == "a red fox"
    assert origin.from_picture == ""


@pytest.mark.parametrize(
    "text",
    [
        SDXL_RUN[:-20],
        SDXL_RUN.replace('"', "")[:-30],
        graph(CHECKPOINT, ("EmptyLatentImage", {}), TEXT).replace('"', "")[:-9],
    ],
)
def test_graph_that_was_cut_off_names_its_model(text):
    assert origin_of(in_comment(text)).generator == "ComfyUI, juggernaut_x"


@pytest.mark.parametrize(
    ("data", "generator"),
    [
        (png_with(Software="NovelAI"), "NovelAI"),
        (png_with(Description="a cat --v 6 Job ID: 01234567-89ab-cdef"), "Midjourney"),
        (with_xmp('dc:description="a cat --v 6 Job ID: 01234567-89ab"'), "Midjourney"),
        (png_with(Description="a cat --ar 3:2 --style raw --v 6.1"), "Midjourney"),
        (with_xmp('dc:description="a cat --niji 6 --ar 16:9"'), "Midjourney"),
        (with_xmp('photoshop:Credit="Made with Google AI"'), "Google AI"),
        (with_iptc(110, b"Made with Google AI"), "Google AI"),
        (with_iptc(110, b"Imagined with AI"), "Meta AI"),
        (with_xmp('xmp:CreatorTool="Adobe Firefly"'), "Adobe Firefly"),
        (with_exif(Software="DALL-E 3"), "DALL·E"),
        (with_exif(Software="Azure OpenAI DALL-E"), "DALL·E"),
        (with_exif(Software="OpenAI API"), "ChatGPT"),
        (with_exif(Software="Ideogram"), "Ideogram"),
        (png_with(Software="Leonardo.Ai"), "Leonardo AI"),
        (with_exif(ImageDescription="Generated with FLUX.1 [dev]"), "FLUX"),
        (with_exif(ImageDescription="Created using Bing Image Creator"), "Microsoft Designer"),
        (
            with_exif(
                ImageDescription="Signature: " + "Ab9+" * 30,
                Artist="01234567-89ab-cdef-0123-456789abcdef",
            ),
            "Grok",
        ),
        (
            with_xmp(
                'Iptc4xmpExt:AISystemUsed="Google Gemini" Iptc4xmpExt:AISystemVersionUsed="3" '
                'Iptc4xmpExt:AIPromptInformation="a cat"'
            ),
            "Google AI",
        ),
        (with_late_text(b"Software", b"Midjourney"), "Midjourney"),
        (with_late_text(b"Software", zlib.compress(b"Midjourney"), b"zTXt"), "Midjourney"),
        (with_late_text(b"Software", zlib.compress(b"Midjourney"), b"iTXt"), "Midjourney"),
        (
            encode(uniform_image(9), "GIF", comment=b"Made with Stable Diffusion"),
            "Stable Diffusion",
        ),
        (encode(uniform_image(9), "JPEG", comment=b"made by ChatGPT"), "ChatGPT"),
        (with_exif(XPComment="Generated by Midjourney".encode("utf-16-le")), "Midjourney"),
    ],
)
def test_generators_are_found_by_the_names_they_leave(data, generator):
    origin = origin_of(data)
    assert (origin.generator, origin.speaks_for) == (generator, "Fake")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0" + WEBUI.encode(),
        b"UNICODE\0" + WEBUI.encode("utf-16-be"),
        b"UNICODE\0" + WEBUI.encode("utf-16-le"),
        b"UNICODE\0" + "狐狸\nSteps: 9, Sampler: x, Model: dreamshaper_8".encode("utf-16-be"),
        b"\0" * 8 + WEBUI.encode(),
        WEBUI.encode("utf-16-le"),
        WEBUI.encode(),
    ],
)
def test_settings_in_exif_are_read_in_every_format_and_encoding(file_format, comment):
    data = with_exif(file_format, UserComment=comment)
    assert origin_of(data).generator == "Stable Diffusion, dreamshaper_8"


REMADE = {
    "generation_mode": "sdxl_img2img",
    "request_type": "Img2ImgRequest",
    "initimagecreativity": 0.6,
}


@pytest.mark.parametrize(
    ("data", "said_by"),
    [
        (png_with(parameters=f"{WEBUI}, Denoising strength: 0.4"), "denoising strength 0.4"),
        (png_with(parameters=f"{WEBUI}, Mask blur: 4"), "Mask blur"),
        (png_with(parameters=f'{WEBUI}, ControlNet 0: "Module: canny"'), "ControlNet"),
        (png_with(prompt=graph(CHECKPOINT, TEXT, SAMPLER, LOAD)), "LoadImage"),
        (png_with(prompt=graph(("IPAdapterAdvanced", {}), FLUX, SAMPLER)), "IPAdapterAdvanced"),
        (png_with(invokeai_metadata=json.dumps(INVOKE | REMADE)), "sdxl_img2img"),
        (png_with(Dream='"a red fox" -s 50 -I photo.png -f 0.75'), "init image"),
        (png_with(Comment=json.dumps(NOVELAI | REMADE)), "Img2ImgRequest"),
        (
            png_with(parameters=json.dumps({"sui_image_params": SWARM | REMADE})),
            "initimagecreativity",
        ),
        (png_with(parameters=json.dumps(DRAW_THINGS | {"strength": 0.5})), "strength 0.5"),
        (png_with(**EASY, prompt_strength="0.8"), "prompt_strength"),
    ],
)
def test_pictures_made_from_another_picture_say_so(data, said_by):
    origin = origin_of(data)
    assert (origin.from_picture, origin.speaks_for) == (said_by, "Fake")


INPAINT = ("InpaintModelConditioning", {})


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (
            png_with(parameters=f"{WEBUI}, Denoising strength: 0.4"),
            Code.FROM_PICTURE,
            "It was made from another picture (denoising strength 0.4).",
        ),
        (
            png_with(parameters=f"{WEBUI}, Mask blur: 4"),
            Code.INPAINTED,
            "A part of another picture was painted over by a generator (Mask blur).",
        ),
        (
            png_with(prompt=graph(CHECKPOINT, TEXT, SAMPLER, LOAD, INPAINT)),
            Code.INPAINTED,
            "A part of another picture was painted over by a generator (InpaintModelConditioning).",
        ),
        (
            png_with(invokeai_metadata=json.dumps(INVOKE | {"generation_mode": "inpaint"})),
            Code.INPAINTED,
            "A part of another picture was painted over by a generator (inpaint).",
        ),
    ],
)
def test_input_picture_and_inpainting_are_findings_of_their_own(data, code, text):
    made, given = read_provenance(data)
    assert (made.code, made.from_picture) == (Code.GENERATOR, "")
    assert (given.code, given.text, given.speaks_for) == (code, text, None)


@pytest.mark.parametrize("model", ["None", "null", "unknown"])
def test_model_that_a_program_does_not_know_is_not_named(model):
    data = png_with(parameters=WEBUI.replace("dreamshaper_8", model))
    (finding,) = read_provenance(data)
    assert finding.text == "It carries the settings of a run of Stable Diffusion."
    assert origin_of(data).generator == "Stable Diffusion"


def test_headline_names_the_tool_beside_a_label_that_does_not():
    label = f'a:DigitalSourceType="{SOURCE_TYPES}trainedAlgorithmicMedia" '
    for data in (
        with_xmp(label + 'dc:description="a cat --v 6 Job ID: 01234567-89ab"'),
        with_xmp(label + 'xmp:CreatorTool="Midjourney"'),
    ):
        headline = origin_of(data).headline
        assert headline == "The file says it was made by a generative model (Midjourney)."


@pytest.mark.parametrize(
    "settings",
    [
        "Denoising strength: 0.4, Hires upscale: 2",
        "ADetailer denoising strength: 0.4, ADetailer inpaint only masked: True",
    ],
)
def test_second_pass_over_the_same_picture_is_no_input_picture(settings):
    assert origin_of(png_with(parameters=f"{WEBUI}, {settings}")).from_picture == ""


@pytest.mark.parametrize(
    "data",
    [
        png_with(workflow=json.dumps({"nodes": [{"type": "KSampler"}], "links": []})),
        png_with(prompt=graph(LOAD, ("ImageScale", {}))),
    ],
)
def test_workflow_without_a_run_of_a_sampler_speaks_for_nobody(data):
    (finding,) = read_provenance(data)
    assert (finding.code, finding.speaks_for, finding.generator) == (Code.WORKFLOW, None, "")


@pytest.mark.parametrize(
    "text",
    [
        "We went with Gem and a flux capacitor to Midwinter",
        "The Gemini Observatory at dusk",
        "A firefly on a leaf, x.ai and grok",
        "Imagen de archivo",
        "how DALL-E works, by hand",
        "tool --v 6 prints its version; --ar is another option",
    ],
)
def test_names_of_other_things_in_prose_are_no_traces(text):
    files = [png_with(Comment=text), with_exif(ImageDescription=text, Artist=text)]
    for data in [*files, with_xmp(f'dc:description="{text}" photoshop:Credit="{text}"')]:
        assert read_provenance(data) == ()


@pytest.mark.parametrize(
    "tags",
    [
        {"Artist": "01234567-89ab-cdef-0123-456789abcdef"},
        {"ImageDescription": "Signature: " + "Ab9+" * 30, "Artist": "Jane Doe"},
    ],
)
def test_signature_or_random_artist_alone_is_not_groks(tags):
    assert read_provenance(with_exif(**tags)) == ()


def test_prompt_that_mentions_another_generator_does_not_name_it():
    data = png_with(parameters=f"in the style of Midjourney, {WEBUI}")
    assert [f.generator for f in read_provenance(data)] == ["Stable Diffusion"]


@pytest.mark.parametrize(
    "hostile",
    [
        png_with(parameters="{" * 500_000),
        png_with(prompt="[" * 100_000, workflow="{" + "[" * 100_000),
        encode(uniform_image(9), "JPEG") + b"<x:xmpmeta" * 150_000,
        with_exif(Make="\x1b[2J\n" + "x" * 50_000),
        png_with(parameters="steps: 1, " * 90_000),
        png_with(prompt=json.dumps({str(i): {"class_type": i} for i in range(40_000)})),
        png_with(prompt=json.dumps({"1": {"class_type": "KSampler", "inputs": 5}, "2": 7})),
        png_with(invokeai_metadata=json.dumps({"generation_mode": [], "model": {"name": [1]}})),
        png_with(**{"sd-metadata": json.dumps({"image": {"prompt": [[]], "type": {}}})}),
        png_with(parameters=json.dumps({"sui_image_params": []})),
        png_with(Comment=json.dumps({"prompt": 1, "uc": 2, "steps": 3, "strength": {}})),
        png_with(AIGC='{"Label": {"AIGC": 1}}'),
        png_with(AIGC='{"AIGC": {"Label": 1e999}}'),
        png_with(Dream='"' * 100_000),
        with_xmp("a:UserComment=" + "<" * 300_000, "PNG"),
        with_xmp("<a:UserComment " * 60_000, "PNG"),
        with_xmp("<a:UserComment>" + "<b>" * 100_000, "PNG"),
        with_exif(ExposureTime=1e-300, Make="\x1b[2J", ISOSpeedRatings=0),
        with_exif(UserComment=b"UNICODE\0" + bytes(range(256)) * 200),
        with_iptc(110, b"\xff" * 60_000),
    ],
)
def test_hostile_metadata_do_no_harm(hostile):
    for finding in read_provenance(hostile):
        assert finding.text.isprintable()
        assert len(finding.text) < 400
        assert len(finding.prompt) <= 10_000
