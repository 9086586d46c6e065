"""Camera data are doubted where they do not fit each other or the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.provenance import FileSays, describe_origin, read_provenance
from tests.provenance.files import photograph, png_with, with_exif, with_xmp
from tests.serving.trivial_model import encode


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> np.ndarray:
    """Soft shapes, as different between seeds as two photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def preview_of(pixels: np.ndarray, *, bars: bool = False, turned: int = 0) -> bytes:
    """A camera's preview: 160 pixels wide, with black bars where it is 4 : 3."""
    small = Image.fromarray(np.rot90(pixels, turned))
    small.thumbnail((160, 160))
    sheet = Image.new("RGB", (160, 120) if bars else small.size)
    sheet.paste(small, ((sheet.width - small.width) // 2, (sheet.height - small.height) // 2))
    return encode(np.asarray(sheet), "JPEG")


def read(data: bytes):
    """The file's origin, its preview compared with its pixels."""
    return describe_origin(read_provenance(data, Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    "preview",
    [
        b"",
        preview_of(scene(1)),
        preview_of(scene(1), bars=True),
        preview_of(scene(1), turned=1),
        preview_of(scene(1), turned=2),
        b"no JPEG",
    ],
)
def test_camera_data_that_fit_the_file_are_not_doubted(preview):
    origin = read(photograph(scene(1), preview=preview))
    assert (origin.says, origin.camera.doubts) == (FileSays.CAMERA, ())


@pytest.mark.parametrize(
    ("data", "doubt"),
    [
        (photograph(scene(1), leave_out="DateTimeOriginal"), "no date"),
        (photograph(scene(1), DateTimeOriginal="0000:00:00 00:00:00"), "no date"),
        (photograph(scene(1), DateTime="2012:01:01 08:00:00"), "changed before it was taken"),
        (photograph(scene(1), ExifImageWidth=6000, ExifImageHeight=4000), "wrote 6000 × 4000"),
        (photograph(scene(1), Make="Apple", Model="iPhone 17"), "notes that the camera left"),
        (photograph(scene(1), Software="Adobe Photoshop 26.1 (Windows)"), "Adobe Photoshop 26.1"),
        (photograph(scene(1), Software="GIMP 2.10"), "edited with GIMP"),
        (photograph(scene(1), file_format="PNG"), "No camera writes PNG"),
        (photograph(scene(1), preview=preview_of(scene(2))), "shows another picture"),
    ],
)
def test_what_does_not_fit_is_said_and_takes_the_weight_from_the_camera(data, doubt):
    origin = read(data)
    assert origin.says is FileSays.CAMERA_DOUBTFUL
    (said,) = origin.camera.doubts
    assert doubt in said


@pytest.mark.parametrize(
    "tags",
    [
        {"Software": "Adobe Photoshop Lightroom 6.0 (Windows)"},
        {"DateTime": "2019:05:16 23:00:00"},
        {"ExifImageWidth": 160, "ExifImageHeight": 240},
        {"DateTime": "2024:01:01 00:00:00"},
        {"MakerNote": b"\x0c\x00\x01\x00"},
    ],
)
def test_what_honest_cameras_and_programs_write_is_no_doubt(tags):
    assert read(photograph(scene(1), **tags)).says is FileSays.CAMERA


def test_camera_data_copied_to_a_generated_picture_are_found_out():
    stolen = Image.open(io.BytesIO(photograph(scene(1), preview=preview_of(scene(1)))))
    forged = encode(scene(7, size=(512, 512)), "JPEG", exif=stolen.info["exif"])
    origin = read(forged)
    assert origin.says is FileSays.CAMERA_DOUBTFUL and len(origin.camera.doubts) == 2


def test_without_pixels_the_preview_is_not_compared():
    data = photograph(scene(1), preview=preview_of(scene(2)))
    assert describe_origin(read_provenance(data)).says is FileSays.CAMERA


def test_preview_cut_short_or_named_outside_the_file_does_no_harm():
    data = photograph(scene(1), preview=preview_of(scene(1))[:300])
    assert read(data).says is FileSays.CAMERA


@pytest.mark.parametrize(
    "data",
    [
        png_with(Software="gnome-screenshot"),
        with_exif(UserComment=b"ASCII\0\0\0Screenshot"),
        with_xmp(
            "<exif:UserComment><rdf:Alt><rdf:li>Screenshot</rdf:li></rdf:Alt></exif:UserComment>"
        ),
    ],
)
def test_screenshots_say_so(data):
    assert describe_origin(read_provenance(data)).screenshot


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_camera_is_read_with_date_and_exposure(file_format):
    data = with_exif(
        file_format,
        Make="Canon",
        Model="Canon EOS 5D",
        DateTimeOriginal="2024:05:17 12:30:00",
        ExposureTime=0.01,
        FNumber=2.8,
        ISOSpeedRatings=100,
    )
    origin = describe_origin(read_provenance(data))
    camera = origin.camera
    assert (camera.make, camera.model, camera.name) == ("Canon", "Canon EOS 5D", "Canon EOS 5D")
    assert (camera.taken, camera.exposure) == ("2024:05:17 12:30:00", "1/100 s, f/2.8, ISO 100")
    assert origin.speaks_for == "Real"
