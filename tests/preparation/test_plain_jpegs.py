"""OpenCV gives Pillow's pixels and bytes for ordinary JPEGs; Pillow reads every other file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from real_vs_ai.core.images import decode_image
from real_vs_ai.perturbations.warps import as_samples, warp
from real_vs_ai.preparation.image_files import (
    decode_plain_jpeg,
    encode_plain_jpeg,
    encoder_like,
    plain_jpeg_settings,
)
from tests.preparation.material import image_bytes, smooth_image


def jpeg(mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    smooth_image(1, (33, 47)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    seed=st.integers(0, 9),
)
def test_pixels_and_bytes_are_those_of_pillow(width, height, quality, subsampling, seed):
    buffer = io.BytesIO()
    options = {"quality": quality, "subsampling": subsampling}
    smooth_image(seed, (width, height)).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    found = plain_jpeg_settings(data)
    assert (found.quality, found.width, found.height) == (quality, width, height)
    pixels = decode_plain_jpeg(data)
    image = decode_image(data)
    assert np.array_equal(pixels[..., ::-1], image.pixels)
    _, encode = encoder_like(data, image)
    assert encode_plain_jpeg(pixels, found) == encode(image.pixels)


TABLES = [[3 + i // 7 for i in range(64)], [5 + i // 5 for i in range(64)]]
EXIF = Image.Exif()
EXIF[0x0112] = 6


NOT_ORDINARY = {
    "grey": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "own tables": jpeg(qtables=TABLES),
    "progressive": jpeg(progressive=True),
    "EXIF": jpeg(exif=EXIF),
    "profile": jpeg(icc_profile=b"profile"),
    "truncated": jpeg()[:-20],
    "trailing": jpeg() + b"behind the end",
    "two scans": jpeg()[:-2] + b"\xff\xda" + b"\xff\xd9",
    "empty": b"",
    "start": b"\xff\xd8",
    "start and end": b"\xff\xd8\xff\xd9",
    "length past the end": b"\xff\xd8\xff\xe0\xff\xff\xff\xda\xff\xd9",
    "no tables": b"\xff\xd8\xff\xda\xff\xd9",
    "PNG": image_bytes(1, file_format="PNG"),
}


@pytest.mark.parametrize("kind", NOT_ORDINARY)
def test_what_is_not_ordinary_is_left_to_pillow(kind):
    assert plain_jpeg_settings(NOT_ORDINARY[kind]) is None


@given(cut=st.integers(0, 2000), bite=st.binary(max_size=8))
@settings(max_examples=200, deadline=None)
def test_damaged_files_never_raise(cut, bite):
    data = jpeg()
    plain_jpeg_settings(data[:cut] + bite + data[cut + len(bite) :])


def test_pillow_decodes_damaged_files_that_opencv_decodes():
    random = np.random.default_rng(5)
    whole = jpeg()
    scan = whole.index(b"\xff\xda") + 14
    compared = 0
    for _ in range(300):
        data = bytearray(whole)
        for position in random.integers(2, len(whole) - 2, 3):
            data[position] = random.integers(256)
        if random.random() < 0.3:
            del data[random.integers(scan, len(whole) - 40) : -30]
        if plain_jpeg_settings(bytes(data)) is None:
            continue
        pixels = decode_plain_jpeg(bytes(data))
        if pixels is not None:
            compared += 1
            assert np.array_equal(pixels[..., ::-1], decode_image(bytes(data)).pixels)
    assert compared > 50


def test_floats_and_bytes_are_warped_alike():
    pixels = np.random.default_rng(3).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    affine = np.array([[0.93, 0.21, -3.3], [-0.18, 1.1, 2.7]])
    floats = as_samples(pixels)
    assert floats.dtype == np.float32
    difference = np.abs(warp(floats, affine).astype(int) - warp(pixels, affine))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
