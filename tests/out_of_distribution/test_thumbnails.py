"""Fitting the out-of-distribution check on thumbnails of other pictures."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.errors import InputError
from real_vs_ai.keras_models import load_model
from real_vs_ai.model_file import write_metadata
from real_vs_ai.out_of_distribution import thumbnails
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, read_check, write_check
from real_vs_ai.out_of_distribution.thumbnails import (
    copy_classifiers,
    draw_thumbnail,
    fit_on_thumbnails,
    make_thumbnails,
)
from tests.serving.trivial_model import METADATA, save_model

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


def test_network_tells_training_images_from_others(monkeypatch):
    monkeypatch.setattr(thumbnails, "_WIDTHS", (4, 8))
    monkeypatch.setattr(thumbnails, "_LEARNING_RATE", 0.02)
    generator = np.random.default_rng(0)
    rough = generator.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    smooth = generator.integers(0, 256, (300, 1, 1, 3), dtype=np.uint8)
    smooth = smooth.repeat(8, axis=1).repeat(8, axis=2)
    network = thumbnails._fit_network(rough[:200], smooth[:200], rough[200:])
    assert network.accepts(rough[200:]).mean() > 0.9
    assert network.accepts(smooth[200:]).mean() < 0.1


def soft_image(generator):
    """Blurred colours with a little noise, as a PIL image."""
    colours = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    soft = np.asarray(colours.resize((32, 32), Image.Resampling.BICUBIC)).astype(float)
    noisy = soft + generator.normal(0, 6, soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_own_images(folder, count, *, seed):
    """The training images of the models below: soft, stored as JPEG."""
    generator = np.random.default_rng(seed)
    for label in ("Fake", "Real"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            soft_image(generator).save(folder / label / f"{number}.jpg", quality=75)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_own_images(folder / "train", 60, seed=0)
    write_own_images(folder / "validation", 40, seed=1)
    return folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A model with a check of features, as training leaves it."""
    path = save_model(tmp_path_factory.mktemp("model") / "model.h5", METADATA)
    layers = (layer.name for layer in load_model(path).layers)
    check = OutOfDistributionCheck(
        layer=next(name for name in layers if name.startswith("global_average_pooling2d")),
        means=np.zeros((2, 3), np.float32),
        whitening=np.eye(3, dtype=np.float32),
        largest_distance=9.0,
        least_sharpness=0.0,
        largest_sharpness=1020.0,
    )
    write_check(path, check)
    return path


@pytest.fixture(scope="module")
def fitted(checked, data, tmp_path_factory):
    """The same model, which knows thumbnails; and what fitting said."""
    folder = tmp_path_factory.mktemp("fitted")
    write_pictures(folder / "pictures", 40)
    path = folder / "model.h5"
    shutil.copy(checked, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thumbnails, "_WIDTHS", (4, 8))
        patch.setattr(thumbnails, "_LEARNING_RATE", 0.02)
        said = fit_on_thumbnails(path, data=data, folders=[folder / "pictures"], **LIMITS)
    return path, said


def test_fitted_file_tells_its_own_images_from_thumbnails_and_keeps_its_check(
    fitted, checked, data
):
    path, said = fitted
    check, before = read_check(path), read_check(checked)
    paths = sorted((data / "validation" / "Fake").iterdir())
    own = np.stack([np.asarray(Image.open(file)) for file in paths])
    others = np.random.default_rng(3).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for part in (check.classifier, check.network):
        assert part.accepts(own).mean() > 0.9 and not part.accepts(others).any()
    kept = dataclasses.replace(check, classifier=None, network=None)
    np.testing.assert_equal(dataclasses.asdict(kept), dataclasses.asdict(before))
    assert "validation images that pass" in said and "thumbnails of held-back pictures" in said


def test_copied_classifiers_judge_alike_with_limits_of_their_own_validation_images(
    fitted, checked, data, tmp_path
):
    path = tmp_path / "model.h5"
    shutil.copy(checked, path)
    said = copy_classifiers(path, fitted[0], data=data, **LIMITS)
    assert "validation images that pass" in said
    copied, source = read_check(path), read_check(fitted[0])
    np.testing.assert_equal(dataclasses.asdict(copied), dataclasses.asdict(source))
    write_own_images(tmp_path / "other" / "validation", 40, seed=2)
    copy_classifiers(path, fitted[0], data=tmp_path / "other", **LIMITS)
    moved = read_check(path)
    assert moved.classifier.least_score != source.classifier.least_score
    assert moved.network.least_score != source.network.least_score


def test_model_that_learnt_from_other_images_is_told(fitted, checked, data, tmp_path):
    path = tmp_path / "model.h5"
    shutil.copy(checked, path)
    assert "other images" not in copy_classifiers(path, fitted[0], data=data, **LIMITS)
    write_metadata(path, dataclasses.replace(METADATA, training_data={"fingerprint": "other"}))
    assert "learnt from other images" in copy_classifiers(path, fitted[0], data=data, **LIMITS)


@pytest.mark.parametrize("scale", [None, [], {"low": 1, "high": "x"}, {"low": 9, "high": 1}])
def test_scales_of_a_hostile_file_do_not_size_the_thumbnails(
    checked, data, tmp_path, monkeypatch, scale
):
    path = tmp_path / "model.h5"
    shutil.copy(checked, path)
    write_metadata(path, dataclasses.replace(METADATA, training_images={"scale": scale}))
    sides = []

    def note(folders, *, side, **options):
        sides.append(side)
        raise InputError("noted")

    monkeypatch.setattr(thumbnails, "make_thumbnails", note)
    with pytest.raises(InputError, match="noted"):
        fit_on_thumbnails(path, data=data, folders=[tmp_path], **LIMITS)
    assert sides == [32]


def test_classifiers_of_another_size_or_none_are_refused(fitted, checked, data, tmp_path):
    with pytest.raises(InputError, match="knows thumbnails, found none"):
        copy_classifiers(fitted[0], checked, data=data, **LIMITS)
    path = tmp_path / "model.h5"
    shutil.copy(fitted[0], path)
    write_metadata(path, dataclasses.replace(METADATA, image_size=24))
    with pytest.raises(InputError, match=r"of 32 pixels like .*, found one of 24"):
        copy_classifiers(checked, path, data=data, **LIMITS)
    with pytest.raises(InputError, match="out-of-distribution check, found none"):
        copy_classifiers(save_model(tmp_path / "bare.h5", METADATA), path, data=data, **LIMITS)
