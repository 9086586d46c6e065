"""Open watermarks are read where a script hid them, and nowhere else."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.provenance import Code, describe_origin, read_provenance
from real_vs_ai.provenance.watermarks import _MARKS, find_watermarks
from tests.serving.trivial_model import encode

STEP = 36
IDS = [f"{mark.generator}{' blue first' * mark.blue_first}" for mark in _MARKS]


def picture(width: int, height: int, *, seed: int = 0) -> np.ndarray:
    """Soft coloured shapes with a grain, as photographs have; shape (height, width, 3), uint8."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(30, 225, (max(2, height // 48), max(2, width // 48), 3))
    soft = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.BICUBIC)
    grain = generator.normal(0, 3, (height, width, 3))
    return np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)


def hide(pixels: np.ndarray, mark) -> np.ndarray:
    """Hide a message as the published method describes it, block after block."""
    rgb = pixels[..., ::-1].astype(float) if mark.blue_first else pixels.astype(float)
    luminance = rgb @ [0.299, 0.587, 0.114]
    blue = 0.492 * (rgb[..., 2] - luminance) + mark.offset
    red = 0.877 * (rgb[..., 0] - luminance) + mark.offset
    if mark.offset == 128:
        luminance, blue, red = (np.rint(channel) for channel in (luminance, blue, red))
    down, across = pixels.shape[0] // 8, pixels.shape[1] // 8
    whole = blue[: down * 8, : across * 8].reshape(down, 4, 2, across, 4, 2)
    averages = (whole.sum(axis=(2, 5)) / 2).transpose(0, 2, 1, 3).reshape(down * across, 16)
    blocks = np.arange(len(averages))
    place = 1 + np.abs(averages[:, 1:]).argmax(axis=1)
    old = averages[blocks, place]
    bits = mark.bits[blocks % len(mark.bits)]
    new = np.copysign((np.abs(old) // STEP + 0.25 + 0.5 * bits) * STEP, old)
    # Half of an average's change goes to each of its four pixels.
    change = np.zeros_like(averages)
    change[blocks, place] = (new - old) / 2
    change = change.reshape(down, across, 4, 4).transpose(0, 2, 1, 3)[:, :, None, :, :, None]
    blue[: down * 8, : across * 8] += np.broadcast_to(change, whole.shape).reshape(
        down * 8, across * 8
    )
    blue, red = (blue - mark.offset) / 0.492 + luminance, (red - mark.offset) / 0.877 + luminance
    green = (luminance - 0.299 * red - 0.114 * blue) / 0.587
    marked = np.stack([red, green, blue], axis=-1)
    marked = np.clip(np.rint(marked), 0, 255).astype(np.uint8)
    return marked[..., ::-1] if mark.blue_first else marked


def names(pixels: np.ndarray) -> list[str]:
    return [finding.generator for finding in find_watermarks(Image.fromarray(pixels))]


def as_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    data = encode(pixels, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mark", _MARKS, ids=IDS)
@pytest.mark.parametrize(("width", "height"), [(512, 512), (1021, 517), (1400, 1000)])
def test_watermarks_are_read_at_every_size(mark, width, height):
    marked = hide(picture(width, height), mark)
    assert names(marked) == [mark.generator]
    assert names(picture(width, height)) == []


@pytest.mark.parametrize("mark", _MARKS, ids=IDS)
def test_watermarks_survive_a_good_jpeg(mark):
    assert names(as_jpeg(hide(picture(768, 768), mark), 95)) == [mark.generator]


def test_finding_of_a_watermark_speaks_for_fake():
    pixels = hide(picture(512, 512), _MARKS[0])
    findings = read_provenance(encode(pixels), Image.fromarray(pixels))
    (finding,) = findings
    assert (finding.code, finding.speaks_for) == (Code.WATERMARK, "Fake")
    assert finding.text == (
        "Its pixels carry the watermark of Stable Diffusion's published script (136 of 136 bits)."
    )
    origin = describe_origin(findings)
    assert origin.headline == "The file says it was made with Stable Diffusion."
    assert "resizing or cropping" in origin.forgery
    assert read_provenance(encode(pixels)) == ()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((512, 512, 3), np.uint8),
        np.full((512, 512, 3), 255, np.uint8),
        np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (512, 3, 3)),
        np.tile(np.array([[[0, 0, 255]], [[255, 255, 0]]], np.uint8).repeat(8, 0), (40, 600, 1)),
        np.zeros((70_000, 1, 3), np.uint8),
        np.zeros((1, 70_000, 3), np.uint8),
        np.zeros((8, 140_000, 3), np.uint8),
        np.zeros((9, 9, 3), np.uint8),
    ],
)
def test_plain_striped_and_thin_pictures_carry_none(pixels):
    assert names(pixels) == []


def test_noise_and_photograph_like_pictures_carry_none():
    for seed in range(20):
        noise = np.random.default_rng(seed).integers(0, 256, (256, 272, 3), dtype=np.uint8)
        assert names(noise) == names(picture(272, 256, seed=seed)) == []


@pytest.mark.parametrize("mark", _MARKS, ids=IDS)
def test_chance_of_a_false_hit_is_below_one_in_a_hundred_million(mark):
    """As many of the positions are taken for ones as the message has, whatever the picture."""
    length, ones = len(mark.bits), int(mark.bits.sum())
    ways = sum(
        math.comb(ones, swaps) * math.comb(length - ones, swaps) for swaps in range(mark.swaps + 1)
    )
    assert ways / math.comb(length, ones) < 1e-8
