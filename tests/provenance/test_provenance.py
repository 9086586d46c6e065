"""Metadata is found and weighed, and damaged or forged metadata does no harm."""

from __future__ import annotations

import copy
import pickle

import pytest

from real_vs_ai.core.messages import read_table
from real_vs_ai.provenance import Code, Seal, describe_origin, labels, read_provenance
from tests.provenance.files import png_with, with_exif
from tests.serving.trivial_model import encode, uniform_image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def texts(data):
    return [finding.text for finding in read_provenance(data)]


def test_a_plain_image_has_no_findings():
    assert read_provenance(encode(uniform_image(5))) == ()
    assert read_provenance(encode(uniform_image(5), "JPEG")) == ()


def test_camera_data_speak_for_real_only_with_an_exposure():
    (with_exposure,) = read_provenance(
        with_exif(Make="Canon", Model="Canon EOS 5D", ExposureTime=0.01)
    )
    assert with_exposure.text.startswith("Has camera data (Canon EOS 5D) and an exposure (1/100 s)")
    assert "origin not proven" in with_exposure.text
    assert with_exposure.speaks_for == "Real"
    (without,) = read_provenance(with_exif(Make="Canon", Model="EOS 5D"))
    assert "(Canon EOS 5D), but no exposure" in without.text
    assert without.speaks_for is None


def test_a_thousand_findings_are_cut_to_a_few():
    words = " ".join(f"{SOURCE_TYPES}{'a' * (i % 50)}{chr(97 + i % 26)}bc" for i in range(1000))
    data = encode(uniform_image(9), "JPEG") + f"<x:xmpmeta>{words}</x:xmpmeta>".encode()
    assert 1 <= len(read_provenance(data)) <= 5


def test_exif_data_cut_short_have_no_findings():
    for file_format in ("PNG", "WEBP"):
        assert texts(encode(uniform_image(9), file_format, exif=b"Exif\0\0II*\0")) == []


def test_what_is_no_image_has_no_findings():
    for data in (b"", b"x", b"\x89PNG\r\n\x1a\n", b"<x:xmpmeta></x:xmpmeta>", b"c2pa jumb"):
        assert not any(f.speaks_for for f in read_provenance(data))


@pytest.mark.parametrize(
    ("data", "headline", "speaks_for"),
    [
        (
            encode(uniform_image(99)),
            "No origin data found; most downloaded pictures have none.",
            None,
        ),
        (
            png_with(parameters="a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"),
            "The file says it was made with Stable Diffusion.",
            "Fake",
        ),
        (
            with_exif(Make="Canon", Model="Canon EOS 5D", ExposureTime=0.01),
            "The file says it was taken with a camera (Canon EOS 5D).",
            "Real",
        ),
        (
            with_exif(Make="Canon", Model="EOS", ExposureTime=0.01, Software="Midjourney 6"),
            "The file contradicts itself: it says it was made with Midjourney, and taken with a "
            "camera (Canon EOS).",
            None,
        ),
    ],
)
def test_origin_headline_says_what_the_file_says(data, headline, speaks_for):
    origin = describe_origin(read_provenance(data))
    assert (origin.headline, origin.speaks_for) == (headline, speaks_for)


def test_origin_says_that_anybody_can_write_metadata():
    origin = describe_origin(read_provenance(png_with(Software="Midjourney")))
    assert origin.forgery == "Anyone can write, change or remove such metadata."


def test_findings_keep_key_and_fields_for_a_translation():
    (finding,) = read_provenance(with_exif(Make="Canon", Model="EOS", ExposureTime=0.01))
    for copied in (finding, pickle.loads(pickle.dumps(finding)), copy.deepcopy(finding)):
        first = copied.text.fields["first"]
        assert first.key == "finding.camera"
        assert first.fields == {"camera": "Canon EOS", "exposure": "1/100 s"}
        assert copied.camera.doubts[0].key == "doubt.no_date"
        assert copied.claim.key == "claim.camera"
    assert describe_origin([finding]).headline.key == "origin.says"


def test_every_seal_source_type_list_and_degree_has_its_sentence():
    keys = {*read_table("en")}
    assert {f"claim.{name}" for name in labels._MEANINGS} <= keys
    assert {f"seal.{seal}" for seal in Seal} <= keys
    assert {f"seal.list_{name}" for name in ("c2pa", "cai", "own")} <= keys
    assert {f"finding.chinese_{degree}" for degree in labels._CHINESE_LABELS} <= keys
    assert {f"finding.{code}" for code in (Code.FROM_PICTURE, Code.INPAINTED)} <= keys
