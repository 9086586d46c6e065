"""Size, sharpness and features are told from what a model learnt from."""

import h5py
import numpy as np
import pytest

from real_vs_ai.out_of_distribution.check import (
    OutOfDistributionCheck,
    compare_size,
    describe_sizes,
    read_check,
    sharpness,
    summarise_training_images,
    write_check,
)
from real_vs_ai.out_of_distribution.learning import Sample, fit_check
from real_vs_ai.verdicts.verdict import ReasonCode

N_FEATURES = 12
SMALL = summarise_training_images([32] * 200, [32] * 200, ["cifake"] * 200)


def bare_check(**parts):
    """A check that nothing fails but for the parts given."""
    return OutOfDistributionCheck(
        layer="head_dense",
        means=np.zeros((2, 4), np.float32),
        whitening=np.eye(4, dtype=np.float32),
        largest_distance=1.0,
        least_sharpness=0.0,
        largest_sharpness=1020.0,
        **parts,
    )


def sample(count, *, seed, offset=0.0):
    """Features around one centre for each of two classes, images of noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centres = np.stack([np.zeros(N_FEATURES), np.full(N_FEATURES, 6.0)])
    spread = np.linspace(0.1, 2, N_FEATURES)
    features = centres[labels] + spread * generator.normal(size=(count, N_FEATURES)) + offset
    pixels = generator.normal(128, 20, (count, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    return Sample(features, pixels, labels)


@pytest.fixture(scope="module")
def fitted():
    return fit_check(sample(2000, seed=1), sample(2000, seed=2), layer="head_dense")


def found(check, images):
    """Which images are out-of-distribution, shape (n,), bool."""
    return np.array([r is not None for r in check.compare(images.features, images.pixels)])


def test_few_in_distribution_images_fail_the_check(fitted):
    new = sample(4000, seed=3)
    assert 0.001 < found(fitted, new).mean() < 0.02
    assert np.median(fitted.distances(new.features)) == pytest.approx(1, abs=0.1)


def test_features_far_from_both_classes_fail_the_check(fitted):
    between = sample(200, seed=4, offset=np.where(np.arange(N_FEATURES) % 2, 4.0, -4.0))
    assert found(fitted, between).mean() > 0.95
    assert fitted.compare(between.features, between.pixels)[0].code is ReasonCode.FEATURES


def test_features_that_never_change_leave_a_usable_measure():
    images = sample(40, seed=6)
    constant = Sample(np.zeros_like(images.features), images.pixels, images.labels)
    fitted = fit_check(constant, constant, layer="head_dense")
    assert fitted.distances(constant.features).max() <= fitted.largest_distance
    assert fitted.distances(np.ones((1, N_FEATURES)))[0] > fitted.largest_distance


def test_distance_counts_in_units_of_each_direction_s_spread(fitted):
    narrow, wide = np.zeros((2, 1, N_FEATURES))
    narrow[0, 0] = wide[0, -1] = 3.0
    assert fitted.distances(narrow)[0] > 5 * fitted.distances(wide)[0]


def test_blurred_and_noisy_images_fail_with_the_reason(fitted):
    images = sample(2, seed=5)
    flat = np.full_like(images.pixels, 90)
    noisy = np.random.default_rng(0).integers(0, 256, images.pixels.shape).astype(np.uint8)
    for pixels, reason in ((flat, "less detail"), (noisy, "harder edges or more noise")):
        for found_reason in fitted.compare(images.features, pixels):
            assert found_reason.code is ReasonCode.SHARPNESS
            assert reason in found_reason.sentence


def test_features_that_are_not_numbers_fail_the_check(fitted):
    images = sample(3, seed=6)
    assert found(fitted, Sample(np.full_like(images.features, np.nan), images.pixels, None)).all()


def test_model_file_keeps_the_check_and_everything_else(fitted, tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.arange(3)
    assert read_check(path) is None
    for _ in range(2):
        write_check(path, fitted)
    read = read_check(path)
    assert (read.layer, read.largest_distance) == ("head_dense", fitted.largest_distance)
    images = sample(50, seed=7)
    np.testing.assert_allclose(read.distances(images.features), fitted.distances(images.features))
    with h5py.File(path) as file:
        assert file["weights"][()].tolist() == [0, 1, 2]
    assert [item.name for item in tmp_path.iterdir()] == ["model.h5"]


@pytest.mark.parametrize("damage", ["whitening", "means", "largest_distance", "shape"])
def test_damaged_statistics_are_left_out_and_the_model_still_serves(fitted, tmp_path, damage):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_check(path, fitted)
    with h5py.File(path, "r+") as file:
        group = file["real_vs_ai_out_of_distribution"]
        if damage == "shape":
            del group["means"]
            group["means"] = np.zeros((2, 3))
        elif damage in group.attrs:
            del group.attrs[damage]
        else:
            del group[damage]
    assert read_check(path) is None


def test_part_that_only_earlier_versions_know_is_ignored(fitted, tmp_path):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_check(path, fitted)
    images = sample(50, seed=7)
    expected = read_check(path).compare(images.features, images.pixels)
    with h5py.File(path, "r+") as file:
        group = file["real_vs_ai_out_of_distribution"].create_group("portraits")
        group.create_dataset("weights", data=np.ones(N_FEATURES, np.float32))
        group.attrs["bias"] = 1e6
    assert read_check(path).compare(images.features, images.pixels) == expected


def test_sharpness_is_the_mean_absolute_laplacian_of_the_greys():
    ramp = np.tile(np.arange(16, dtype=np.uint8)[None, None, :, None] * 10, (1, 16, 1, 3))
    assert sharpness(ramp) == pytest.approx([0])
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert sharpness(np.stack([board] * 3, axis=-1)[None]) == pytest.approx([4 * 255])


@pytest.mark.parametrize(
    ("size", "passes"),
    [
        ((32, 32), True),
        ((48, 48), True),
        ((64, 64), False),
        ((4000, 3000), False),
        ((22, 22), True),
        ((16, 16), False),
        # A narrow strip has the scale of its area.
        ((64, 16), True),
        ((1, 1), False),
    ],
)
def test_only_sizes_near_the_training_images_pass(size, passes):
    reason = compare_size(*size, SMALL)
    assert (reason is None) == passes
    assert passes or reason.code is ReasonCode.SIZE


def test_size_reason_names_the_known_sizes_and_the_images():
    assert "32 × 32 pixels; yours is 4000 × 3000" in compare_size(4000, 3000, SMALL).sentence
    assert "yours is 4 × 4" in compare_size(4, 4, SMALL).sentence
    reduced = compare_size(2048, 4, SMALL, reduced_from=(20_000, 39))
    assert "yours is 20000 × 39, reduced to 2048 × 4, so" in reduced.sentence
    assert compare_size(4, 4, SMALL, crops=True).sentence == (
        "It is too small to judge: 4 × 4 pixels. Use pictures at least 32 pixels wide and high."
    )


def test_few_odd_training_images_do_not_admit_their_size():
    mixed = summarise_training_images([32] * 999 + [4000], [32] * 999 + [4000], ["a"] * 1000)
    assert compare_size(4000, 4000, mixed)


def test_models_of_many_sizes_know_all_of_them():
    wide = summarise_training_images([32] * 50 + [1000] * 50, [32] * 50 + [1000] * 50, ["a"] * 100)
    assert not any(compare_size(side, side, wide) for side in (24, 32, 200, 1000, 1400))
    assert describe_sizes(wide) == "about 32 × 32 to 1000 × 1000 pixels"


def test_summary_counts_the_known_sources():
    assert SMALL["scale"] == {"low": 32.0, "median": 32.0, "high": 32.0}
    summary = summarise_training_images([32, 32, 32], [32, 32, 32], ["b", "a", ""])
    assert summary["sources"] == {"a": 1, "b": 1}
    assert summarise_training_images([], [], []) == {}


@pytest.mark.parametrize(
    "training_images",
    [
        {},
        {"scale": None},
        {"scale": {}},
        {"scale": {"low": "x", "high": 2}},
        [],
        None,
        {"scale": {"low": float("nan"), "high": 1.0}},
        {"scale": {"low": 0, "high": 0}},
        {"scale": {"low": 9, "high": 3}},
        {"scale": [1, 2]},
        {"scale": {"low": [], "high": {}}},
    ],
)
def test_every_size_passes_where_the_model_states_none(training_images):
    assert compare_size(4000, 3000, training_images) is None
    assert describe_sizes(training_images) == ""
