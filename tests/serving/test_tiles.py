"""Tiles lie within the image, cover it and are never too many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_vs_ai.serving.image_sources import iterate_sources
from real_vs_ai.serving.score_table import score_row
from real_vs_ai.serving.scoring import MAX_TILES, cut_tiles, score_images
from tests.serving.trivial_model import IMAGE_SIZE, encode, uniform_image


def positions(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are."""
    rows, columns = np.indices((height, width))
    return np.stack(
        [rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=2
    ).astype(np.uint8)


def test_tiles_are_the_images_own_pixels_and_reach_all_its_corners():
    pixels = positions(100, 70)
    tiles = cut_tiles(pixels, tile_size=32)
    np.testing.assert_array_equal(tiles[0], pixels[:32, :32])
    np.testing.assert_array_equal(tiles[-1], pixels[-32:, -32:])


def test_together_the_tiles_cover_the_image():
    pixels = positions(90, 131)
    covered = {tuple(p) for tile in cut_tiles(pixels, tile_size=32) for p in tile.reshape(-1, 3)}
    assert covered == {tuple(p) for p in pixels.reshape(-1, 3)}


@given(height=st.integers(1, 900), width=st.integers(1, 900), most=st.integers(1, 64))
def test_there_are_never_more_tiles_than_asked_for(height, width, most):
    pixels = np.zeros((height, width, 3), np.uint8)
    tiles = cut_tiles(pixels, tile_size=64, max_tiles=most)
    assert len(tiles) <= most
    assert tiles.shape[1:] == (64, 64, 3)
    larger = min(height, width) >= 64 and max(height, width) > 64
    assert bool(len(tiles)) == larger


@pytest.mark.parametrize("size", [(20, 500), (32, 32), (31, 31)])
def test_images_no_larger_than_a_tile_have_none(size):
    assert len(cut_tiles(uniform_image(1, size), tile_size=32)) == 0


def test_fake_part_shows_in_the_tiles_only(detector, tmp_path):
    pixels = uniform_image(20, (320, 320))
    pixels[100:170, 100:170] = 250
    (tmp_path / "patched.png").write_bytes(encode(pixels))
    (tmp_path / "small.png").write_bytes(encode(uniform_image(20, (16, 16))))
    sources = list(iterate_sources([str(tmp_path)]))
    patched, small = score_images(sources, detector=detector, workers=1, by_tiles=True)
    whole_only, _ = score_images(sources, detector=detector, workers=1)
    assert patched.verdict == whole_only.verdict
    assert patched.verdict.label == "Real"
    row = score_row(patched, detector.metadata, by_tiles=True)
    assert row["tiles"] == MAX_TILES
    assert row["tiles_label"] == "Real"
    assert row["tiles_highest_probability_fake"] > 0.9
    assert score_row(small, detector.metadata, by_tiles=True)["tiles"] == 0
    assert IMAGE_SIZE == 32
