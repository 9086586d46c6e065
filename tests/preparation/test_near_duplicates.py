"""Near-duplicates are found as a full comparison finds them, and share a split when grouped."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from real_vs_ai.preparation.likeness import MAX_BITS, group_near_duplicates, perceptual_hash
from tests.preparation.material import smooth_image, split


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def groups_by_full_comparison(hashes):
    group = list(range(len(hashes)))
    for i, j in combinations(range(len(hashes)), 2):
        if (hashes[i] ^ hashes[j]).bit_count() <= MAX_BITS:
            low, high = sorted((group[i], group[j]))
            group = [low if g == high else g for g in group]
    return {i: g for i, g in enumerate(group) if group.count(g) > 1}


near_hashes = st.lists(
    st.builds(
        lambda base, bits: base ^ sum(1 << b for b in bits),
        st.sampled_from([0, 2**64 - 1, 0x0F0F0F0F0F0F0F0F]),
        st.sets(st.integers(0, 63), max_size=5),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(near_hashes)
def test_banding_finds_exactly_the_groups_of_a_full_comparison(hashes):
    assert group_near_duplicates(hashes) == groups_by_full_comparison(hashes)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: recompressed(image, quality=60),
        lambda image: image.resize((48, 48)),
        lambda image: image.point(lambda value: min(value + 6, 255)),
    ],
)
def test_changed_copy_is_near_and_other_picture_is_not(change):
    first = perceptual_hash(np.asarray(smooth_image(1)))
    changed = perceptual_hash(np.asarray(change(smooth_image(1))))
    other = perceptual_hash(np.asarray(smooth_image(2)))
    assert group_near_duplicates([first, changed, other]) == {0: 0, 1: 0}


def recompressed(image, *, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.fixture
def data_set(tmp_path):
    """Thirty pictures of each class, the first ten of them in two qualities."""
    for index, label in enumerate(("Fake", "Real")):
        for i in range(30):
            image = smooth_image(1000 * index + i)
            save(image, tmp_path / "set" / label / f"{i}.jpg", quality=95)
            if i < 10:
                save(image, tmp_path / "set" / label / f"{i}-small.jpg", quality=85)
    return tmp_path / "set"


def split_of(summary):
    return {row.origin.removeprefix("set/"): row.split for row in summary.rows}


def test_grouped_near_duplicates_never_straddle_splits(data_set, tmp_path):
    splits = split_of(split(data_set, tmp_path / "split", near_duplicates="group"))
    assert len(splits) == 80
    for label in ("Fake", "Real"):
        for i in range(10):
            assert splits[f"{label}/{i}.jpg"] == splits[f"{label}/{i}-small.jpg"]
