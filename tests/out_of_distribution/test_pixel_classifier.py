"""The pixel classifier knows how the training images were stored, and refuses other pictures."""

from __future__ import annotations

import dataclasses
import io

import h5py
import numpy as np
import pytest
from PIL import Image

from real_vs_ai.out_of_distribution.check import read_check, write_check
from real_vs_ai.out_of_distribution.pixel_classifier import (
    PixelNetwork,
    find_steps,
    fit_classifier,
    measure,
    plain_blocks,
)
from real_vs_ai.verdicts.verdict import ReasonCode
from tests.out_of_distribution.test_check import bare_check


def pictures(count: int, *, seed: int, quality: int | None, size: int = 16) -> np.ndarray:
    """Smooth coloured noise, stored as JPEG of this quality, or not compressed."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        if quality is not None:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            image = Image.open(buffer).convert("RGB")
        made.append(np.asarray(image))
    return np.stack(made)


@pytest.fixture(scope="module")
def classifier():
    others = np.concatenate(
        [pictures(200, seed=2, quality=None), pictures(200, seed=3, quality=50)]
    )
    train, held_back = (pictures(400, seed=seed, quality=75) for seed in (0, 1))
    return fit_classifier(train, others, held_back, seed=0)


def test_new_pictures_stored_alike_pass(classifier):
    assert classifier.accepts(pictures(300, seed=4, quality=75)).mean() > 0.9


@pytest.mark.parametrize("quality", [None, 50])
def test_pictures_stored_otherwise_are_refused(classifier, quality):
    assert classifier.accepts(pictures(300, seed=5, quality=quality)).mean() < 0.05


def test_steps_are_those_of_the_jpeg_table():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=75)
    table = Image.open(buffer).quantization[0]
    steps = find_steps(pictures(600, seed=6, quality=75))
    # Low frequencies, which every picture has.
    low = [0, 1, 2, 8, 9, 16]
    assert [int(steps[i]) for i in low] == [table[i] for i in low]


def test_sizes_that_are_no_block_multiple_can_be_measured():
    images = pictures(3, seed=7, quality=75, size=21)
    assert np.isfinite(measure(images, steps=find_steps(images))).all()


def test_model_file_keeps_the_classifier_and_the_check_uses_it(classifier, tmp_path):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    check = bare_check()
    write_check(path, check)
    assert read_check(path).classifier is None
    write_check(path, dataclasses.replace(check, classifier=classifier))
    read = read_check(path)
    alike, other = (pictures(40, seed=8, quality=quality) for quality in (75, None))
    features = np.zeros((40, 4), np.float32)
    accepted = [reason is None for reason in read.compare(features, alike)]
    assert accepted == classifier.accepts(alike).tolist() and np.mean(accepted) > 0.8
    codes = {reason.code for reason in read.compare(features, other[:, None]) if reason}
    assert codes == {ReasonCode.PIXELS}
    with h5py.File(path, "r+") as file:
        del file["real_vs_ai_out_of_distribution/classifier/weights"]
    assert read_check(path) is None


def test_statistics_stay_as_many_as_model_files_hold_weights():
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    assert measure(pixels, steps=np.ones(64, np.float32)).shape == (1, 534)


@pytest.fixture
def network():
    """Scores the brightness."""
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    kernel[1, 1] = 1
    again = np.zeros((3, 3, 1, 1), np.float32)
    again[0, 0] = 1
    bias = np.zeros(1, np.float32)
    return PixelNetwork((kernel, again), (bias, bias), np.ones(1, np.float32), least_score=0.5)


def test_network_looks_at_every_second_pixel_of_its_second_layer(network):
    pixels = np.full((1, 16, 16, 3), 128, np.uint8)
    assert network.scores(pixels) == pytest.approx([0.0])
    pixels[:, ::2, ::2] = 192
    assert network.scores(pixels) == pytest.approx([3.0])
    # With an odd side the first window begins outside, as in Keras.
    assert network.scores(pixels[:, :15, :15]) < 3


def test_model_file_keeps_the_network_and_the_check_uses_it(network, tmp_path):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_check(path, bare_check(network=network))
    pixels = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (100, 250)])
    reasons = read_check(path).compare(np.zeros((2, 4), np.float32), pixels)
    assert [reason and reason.code for reason in reasons] == [ReasonCode.PIXELS, None]


def test_plain_blocks_are_the_flat_ones_and_those_of_the_commonest_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    # The second is not flat: every sixteenth column differs.
    pixels[:32, :32], pixels[:32, 32:64] = 200, 200
    pixels[:32, 32:64:16] = 90
    found = plain_blocks(pixels)
    assert found.shape == (4, 6)
    assert found[:2, :4].all() and found.sum() == 8
