"""Fitting the out-of-distribution check on thumbnails of other pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.errors import InputError
from real_vs_ai.dataset.decoded_images import decode_images
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.out_of_distribution.learning import (
    draw_thumbnail,
    fit_on_thumbnails,
    make_thumbnails,
)
from tests.out_of_distribution.test_check import bare_check
from tests.serving import trivial_model

METADATA = dataclasses.replace(
    trivial_model.METADATA, training_images={"scale": {"low": 32.0, "high": 32.0}}
)
LIMITS = {"workers": 1, "max_memory_bytes": 2**30}


def write_pictures(folder, count, *, seed=0):
    generator = np.random.default_rng(seed)
    (folder / "inner").mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "inner" / f"{number}.png")


def test_thumbnails_come_from_every_folder_and_are_the_same_again(tmp_path):
    write_pictures(tmp_path / "a", 10)
    write_pictures(tmp_path / "b", 6, seed=1)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    folders = [tmp_path / "a", tmp_path / "b"]
    others, held_back = make_thumbnails(folders, side=32, image_size=32, workers=1)
    assert others.shape == (14 * 7, 32, 32, 3) and held_back.shape == (2 * 7, 32, 32, 3)
    again, _ = make_thumbnails(folders, side=32, image_size=32, workers=1)
    np.testing.assert_array_equal(others, again)


def test_thumbnails_of_one_picture_differ_in_filter_and_storage():
    pixels = np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    generator = np.random.default_rng(1)
    made = [draw_thumbnail(pixels, side=16, generator=generator) for _ in range(30)]
    assert all(thumbnail.shape == (16, 16, 3) for thumbnail in made)
    assert len({thumbnail.tobytes() for thumbnail in made}) > 20


def test_too_few_pictures_are_refused(tmp_path):
    write_pictures(tmp_path / "a", 3)
    with pytest.raises(InputError, match="at least 16 pictures"):
        make_thumbnails([tmp_path / "a"], side=32, image_size=32, workers=1)


def soft_image(generator):
    """Blurred colours with a little noise, as a PIL image."""
    colours = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    soft = np.asarray(colours.resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
    noisy = soft + generator.normal(0, 6, soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_own_images(folder, count, *, seed):
    """The training images of the model below: soft, stored as JPEG."""
    generator = np.random.default_rng(seed)
    for label in ("Fake", "Real"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            soft_image(generator).save(folder / label / f"{number}.jpg", quality=75)


def decode(folder):
    return decode_images(list_labelled_images(folder), model_input=METADATA.model_input, **LIMITS)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_own_images(folder / "train", 60, seed=0)
    write_own_images(folder / "validation", 40, seed=1)
    return {split: decode(folder / split) for split in ("train", "validation")}


@pytest.fixture(scope="module")
def fitted(splits, tmp_path_factory):
    """A check that knows thumbnails; and what fitting said."""
    pictures = tmp_path_factory.mktemp("pictures")
    write_pictures(pictures, 40)
    return fit_on_thumbnails(bare_check(), splits, METADATA, folders=[pictures], workers=1)


def test_fitted_check_tells_its_own_images_from_thumbnails(fitted, splits):
    check, said = fitted
    own = splits["validation"].inputs
    others = np.random.default_rng(3).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for part in (check.classifier, check.network):
        assert part.accepts(own).mean() > 0.9 and not part.accepts(others).any()
    kept = dataclasses.replace(check, classifier=None, network=None)
    np.testing.assert_equal(dataclasses.asdict(kept), dataclasses.asdict(bare_check()))
    assert "validation images that pass" in said and "thumbnails of held-back pictures" in said
