"""Fitting the out-of-distribution check on thumbnails of other pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.errors import InputError
from real_vs_ai.evaluation import thumbnails
from real_vs_ai.evaluation.thumbnails import draw_thumbnail, make_thumbnails


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
