"""Copies on disk and training batches share one definition of warps."""

from __future__ import annotations

import numpy as np
import pytest

from real_vs_ai.perturbations.warps import (
    STANDARD_RANGES,
    AffineRanges,
    affine_rows,
    copy_draws,
    draw_affine,
    warp,
)

NONE = AffineRanges(rotation=0, shift=0, shear=0, zoom=0, flip=False)
SHIFT = AffineRanges(rotation=0, shift=0.2, shear=0, zoom=0, flip=False)


@pytest.mark.parametrize("number", range(1, 9))
def test_shifted_copy_is_not_blurred(number):
    """Every pixel of the copy is a pixel of the original: shifts are whole pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    affine = draw_affine(SHIFT, width=47, height=33, draws=copy_draws(1, "a", number))
    right, down = affine[:, 2].astype(int)
    assert np.array_equal(affine[:, 2], [right, down])
    rows = np.clip(np.arange(33) + down, 0, 32)
    columns = np.clip(np.arange(47) + right, 0, 46)
    assert np.array_equal(warp(pixels, affine), pixels[np.ix_(rows, columns)])


def test_numpy_and_tensorflow_draw_the_same_maps():
    tf = pytest.importorskip("tensorflow")
    draws = np.random.default_rng(0).uniform(-1, 1, (7, 50)).astype(np.float32)
    by_tensorflow = affine_rows(
        STANDARD_RANGES, width=32, height=32, draws=tf.unstack(tf.constant(draws)), xp=tf
    )
    by_numpy = [
        draw_affine(STANDARD_RANGES, width=32, height=32, draws=column) for column in draws.T
    ]
    assert np.allclose(np.transpose(by_tensorflow, (2, 0, 1)), by_numpy, atol=1e-4)


def test_without_any_range_the_warp_changes_no_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    affine = draw_affine(NONE, width=40, height=30, draws=copy_draws(1, "a", 1))
    assert np.array_equal(warp(pixels, affine), pixels)


def test_a_flip_alone_mirrors_left_and_right():
    ranges = AffineRanges(rotation=0, shift=0, shear=0, zoom=0, flip=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    results = set()
    for number in range(20):
        draws = copy_draws(1, "a", number)
        warped = warp(pixels, draw_affine(ranges, width=40, height=30, draws=draws))
        results.add(
            "same"
            if np.array_equal(warped, pixels)
            else "mirrored"
            if np.array_equal(warped, pixels[:, ::-1])
            else "other"
        )
    assert results == {"same", "mirrored"}


def test_warps_keep_within_their_ranges():
    for number in range(200):
        draws = copy_draws(3, "a", number)
        affine = draw_affine(STANDARD_RANGES, width=100, height=50, draws=draws)
        scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
        assert 0.79 < scale < 1.21
        centre = np.array([49.5, 24.5])
        shift = affine @ np.array([*centre, 1]) - centre
        assert abs(shift[0]) <= 20 + 1e-9
        assert abs(shift[1]) <= 10 + 1e-9


def test_uncovered_parts_show_the_nearest_edge_pixel():
    pixels = np.full((20, 20, 3), 200, dtype=np.uint8)
    affine = np.array([[1.0, 0, 15], [0, 1, 15]])
    assert np.array_equal(warp(pixels, affine), pixels)
