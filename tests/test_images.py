"""Every kind of image file has one defined outcome, and no file can cost much."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from real_vs_ai.core.images import (
    FORMATS,
    ImageError,
    decode_image,
    file_extension,
    is_image_name,
    open_image,
    read_header,
    resize_image,
)

REPOSITORY = Path(__file__).resolve().parents[1]
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
LOSSY = ("JPEG", "WEBP", "AVIF", "HEIF")


def gradient(width: int = 48, height: int = 32) -> np.ndarray:
    across = np.linspace(0, 255, width)[None, :, None]
    down = np.linspace(0, 255, height)[:, None, None]
    red, green = np.broadcast_arrays(across, down)
    return np.concatenate([red, green, (red + green) / 2], axis=2).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, file_format: str, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    if file_format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_lossless_formats_give_back_their_pixels(file_format):
    palette = Image.fromarray(gradient()).quantize(64) if file_format == "GIF" else None
    image = palette or Image.fromarray(gradient())
    decoded = decode_image(encode(image, file_format))
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image.convert("RGB")))
    assert decoded.format == file_format
    assert (decoded.width, decoded.height) == (48, 32)


@pytest.mark.parametrize("file_format", LOSSY)
def test_lossy_formats_come_near_their_pixels(file_format):
    decoded = decode_image(encode(gradient(), file_format, quality=95))
    assert decoded.format == file_format
    assert np.abs(decoded.pixels.astype(int) - gradient()).mean() < 4


def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "photograph.jpg"
    path.write_bytes(encode(gradient(), "PNG"))
    assert decode_image(path).format == "PNG"
    assert is_image_name("a/B.JPEG")
    assert not is_image_name("a.txt")


def test_resizing_a_decoded_image_and_its_pixels_gives_the_same():
    for image in (gradient(), gradient()[:, :, ::-1], gradient()[:7, :5]):
        decoded = decode_image(encode(np.ascontiguousarray(image), "JPEG"))
        for size in (8, 32, 100):
            np.testing.assert_array_equal(
                resize_image(decoded, size), resize_image(decoded.pixels, size)
            )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = gradient()
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.ascontiguousarray(turns[orientation])
    data = encode(stored, "PNG", exif=exif)
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, upright)
    assert bool(decoded.notes) == (orientation != 1)
    assert (read_header(data).width, read_header(data).height) == (48, 32)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(mode):
    image = Image.fromarray(gradient()).convert(mode)
    decoded = decode_image(encode(image, "TIFF"))
    assert decoded.pixels.shape == (32, 48, 3)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded.pixels - expected).max() <= 1


@pytest.mark.parametrize(
    ("image", "file_format", "options"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG", {}),
        (Image.new("LA", (4, 4), (0, 0)), "PNG", {}),
        (Image.new("RGB", (4, 4)).quantize(2), "PNG", {"transparency": 0}),
        (Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "WEBP", {"lossless": True}),
    ],
)
def test_transparency_is_laid_over_white(image, file_format, options):
    decoded = decode_image(encode(image, file_format, **options))
    assert (decoded.pixels == 255).all()
    assert decoded.notes == ("Its transparent parts were laid over white.",)


def test_half_transparency_is_mixed_with_white():
    pixels = open_image(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG"))
    assert np.abs(pixels.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_samples_are_scaled_and_not_clipped(file_format):
    samples = np.linspace(0, 65_535, 600 * 20).reshape(600, 20).astype(np.uint16)
    pixels = open_image(encode(Image.fromarray(samples), file_format))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(samples / 257.0))


def test_16_bit_samples_with_transparent_grey_are_scaled():
    samples = np.full((8, 8), 30_000, dtype=np.uint16)
    plain = Image.fromarray(samples)
    expected = open_image(encode(plain, "PNG"))
    found = decode_image(encode(plain, "PNG", transparency=12_345))
    assert expected[0, 0, 0] == round(30_000 / 257)
    np.testing.assert_array_equal(found.pixels, expected)
    assert any("transparent grey level" in note for note in found.notes)


@pytest.mark.parametrize("full_scale", [1.0, 255.0, 65_535.0])
def test_floating_point_samples_are_scaled_by_their_range(full_scale):
    samples = (np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)) * np.float32(full_scale)
    samples[0, 0] = np.nan
    pixels = open_image(encode(Image.fromarray(samples), "TIFF"))
    assert pixels.max() == 255
    assert pixels[0, 0, 0] == 0
    assert pixels[5, 0, 0] == pytest.approx(255 * 50 / 99, abs=1)


def test_colour_profiles_are_converted_to_srgb():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = decode_image(encode(gradient(), "PNG", icc_profile=lab))
    np.testing.assert_array_equal(plain.pixels, gradient())
    damaged = decode_image(encode(gradient(), "PNG", icc_profile=b"no profile"))
    np.testing.assert_array_equal(damaged.pixels, gradient())
    assert damaged.notes == ("Its colour profile is damaged and was left out.",)


def test_colour_profiles_of_palette_images_are_converted():
    # sRGB with red and blue exchanged, under another name.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
        profile = profile.replace(old, new)
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    full = decode_image(encode(red, "PNG", icc_profile=profile))
    palette = decode_image(encode(red.quantize(4), "PNG", icc_profile=profile))
    assert full.pixels[0, 0, 2] > 200 > 50 > full.pixels[0, 0, 0]
    np.testing.assert_allclose(palette.pixels.astype(int), full.pixels, atol=3)
    assert palette.notes == full.notes == ("Its colour profile was converted to sRGB.",)


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].animated])
def test_first_frame_of_an_animation_is_used(name):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("black", "white", "red")]
    decoded = decode_image(encode(frames[0], name, save_all=True, append_images=frames[1:]))
    assert decoded.pixels.max() < 20
    assert "Animated: its first frame was used." in decoded.notes


def test_a_jpeg_with_a_second_picture_is_a_jpeg():
    frames = [Image.fromarray(gradient()), Image.new("RGB", (8, 8))]
    decoded = decode_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert decoded.format == "JPEG"
    assert decoded.pixels.shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(data)


@pytest.mark.parametrize("file_format", [*LOSSLESS[:3], *LOSSY])
def test_a_truncated_image_is_refused(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, file_format)
    with pytest.raises(ImageError):
        open_image(data[: len(data) // 2])


def test_too_many_pixels_are_refused_before_decoding():
    data = encode(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(ImageError, match="too many pixels"):
        open_image(data)
    with pytest.raises(ImageError, match="48 × 32"):
        decode_image(encode(gradient(), "PNG"), max_pixels=1000)


def test_too_many_bytes_are_refused_before_reading(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(ImageError, match="file too large"):
        open_image(path)


def test_a_jpeg_of_a_thousand_scans_is_refused():
    data = encode(gradient(), "JPEG", progressive=True)
    assert open_image(data).shape == (32, 48, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="scans"):
        open_image(data[:-2] + data[last:-2] * 1000 + data[-2:])


def test_a_film_behind_a_jpeg_is_not_taken_for_scans():
    film = np.random.default_rng(0).integers(0, 256, 12_000_000, dtype=np.uint8).tobytes()
    assert film.count(b"\xff\xda") > 100
    assert open_image(encode(gradient(), "JPEG") + film).shape == (32, 48, 3)


def test_resizing_is_antialiased_bilinear_and_leaves_the_right_size_alone():
    pixels = gradient(64, 64)
    assert resize_image(pixels, 64) is pixels
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 254
    # Without antialiasing a checkerboard turns black, white, or into stripes.
    assert np.abs(resize_image(checks, 16).astype(int) - 127).max() <= 2
    assert resize_image(gradient(30, 90), 20).shape == (20, 20, 3)


def mutants(count: int) -> list[bytes]:
    """Damaged files of every format: bytes changed, cut, repeated, and sizes blown up."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    frames = {"save_all": True, "append_images": [Image.fromarray(noise[::-1])]}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    originals = [
        *(encode(noise, name) for name in (*LOSSLESS, *LOSSY)),
        encode(noise, "JPEG", exif=exif, icc_profile=profile, progressive=True),
        encode(noise, "PNG", exif=exif, icc_profile=profile),
        encode(noise, "WEBP", exif=exif, icc_profile=profile, lossless=True),
        *(encode(noise, name, **frames) for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF")),
        encode(Image.fromarray(noise).convert("RGBA"), "PNG"),
        encode(Image.fromarray(noise).convert("CMYK"), "JPEG"),
        *(encode(noise, "TIFF", compression=f"tiff_{kind}") for kind in ("lzw", "deflate", "jpeg")),
        encode(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG"),
    ]
    return [_mutate(originals[i % len(originals)], generator) for i in range(count)]


def _mutate(original: bytes, generator: np.random.Generator) -> bytes:
    data = bytearray(original)
    kind = generator.integers(5)
    # Headers decide most, so half of the damage is done to them.
    reach = len(data) if generator.integers(2) else min(len(data), 200)
    start = int(generator.integers(reach))
    if kind == 0:
        del data[start:]
    elif kind == 1:
        data[start : start + 4] = generator.bytes(4)
    elif kind == 2:
        data[start : start + 4] = b"\xff\xff\xff\x7f"
    elif kind == 3:
        data[start:start] = data[start : start + 64] * int(generator.integers(1, 20))
    else:
        for position in generator.integers(0, reach, 8):
            data[position] ^= 1 << generator.integers(8)
    return bytes(data)


_DECODE_ALL = """
import json, resource, sys
from tests.test_images import mutants
from real_vs_ai.core.images import ImageError, decode_image, read_header
from real_vs_ai.provenance import read_provenance
files = mutants(int(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decoded = refused = 0
for data in files:
    read_provenance(data)
    for function in (read_header, decode_image):
        try:
            limit = {"max_pixels": 1_000_000} if function is decode_image else {}
            image = function(data, **limit)
        except ImageError as error:
            assert str(error) and "\\n" not in str(error)
            refused += function is decode_image
        else:
            decoded += function is decode_image
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"decoded": decoded, "refused": refused, "grown_kib": after - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="measures memory as POSIX does")
def test_thousands_of_damaged_files_do_no_harm():
    done = subprocess.run(
        [sys.executable, "-c", _DECODE_ALL, "3000"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["decoded"] + result["refused"] == 3000
    assert min(result["decoded"], result["refused"]) > 300
    # A megapixel is 3 MB of pixels; the libraries themselves take the most.
    assert result["grown_kib"] < 200 * 1024


def test_every_format_is_described_and_recognised_by_its_names():
    for entry in FORMATS.values():
        assert entry.title in "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC"
        assert all(is_image_name(f"x{extension.upper()}") for extension in entry.extensions)
    assert not is_image_name("x.eps")
    assert file_extension("WEBP") == ".webp"
