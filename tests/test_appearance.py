"""Images unlike those a model learnt from are told by features and sharpness, and no others."""

import h5py
import numpy as np
import pytest

from real_vs_ai.appearance import Seen, fit_appearance, read_appearance, sharpness, write_appearance

N_FEATURES = 12


def seen(count, *, seed, offset=0.0):
    """Features around one centre for each of two classes, images of noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centres = np.stack([np.zeros(N_FEATURES), np.full(N_FEATURES, 6.0)])
    spread = np.linspace(0.1, 2, N_FEATURES)
    features = centres[labels] + spread * generator.normal(size=(count, N_FEATURES)) + offset
    pixels = generator.normal(128, 20, (count, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    return Seen(features, pixels, labels)


@pytest.fixture(scope="module")
def fitted():
    return fit_appearance(seen(2000, seed=1), seen(2000, seed=2), layer="head_dense")


def outside(appearance, images):
    return np.array([fit.outside for fit in appearance.compare(images.features, images.pixels)])


def test_few_images_like_the_training_images_are_turned_away(fitted):
    new = seen(4000, seed=3)
    assert 0.001 < outside(fitted, new).mean() < 0.02
    assert np.median(fitted.distances(new.features)) == pytest.approx(1, abs=0.1)


def test_features_far_from_both_classes_are_unlike(fitted):
    between = seen(200, seed=4, offset=np.where(np.arange(N_FEATURES) % 2, 4.0, -4.0))
    assert outside(fitted, between).mean() > 0.95
    fit = fitted.compare(between.features, between.pixels)[0]
    assert fit.note == "To the network it looks unlike the images this model learnt from."


def test_features_that_never_change_leave_a_usable_measure():
    images = seen(40, seed=6)
    constant = Seen(np.zeros_like(images.features), images.pixels, images.labels)
    fitted = fit_appearance(constant, constant, layer="head_dense")
    assert fitted.distances(constant.features).max() <= fitted.largest_distance
    assert fitted.distances(np.ones((1, N_FEATURES)))[0] > fitted.largest_distance


def test_distance_counts_in_units_of_each_direction_s_spread(fitted):
    narrow, wide = np.zeros((2, 1, N_FEATURES))
    narrow[0, 0] = wide[0, -1] = 3.0
    assert fitted.distances(narrow)[0] > 5 * fitted.distances(wide)[0]


def test_blurred_and_noisy_images_are_unlike_and_the_reason_is_told(fitted):
    images = seen(2, seed=5)
    flat = np.full_like(images.pixels, 90)
    noisy = np.random.default_rng(0).integers(0, 256, images.pixels.shape).astype(np.uint8)
    for pixels, reason in ((flat, "less detail"), (noisy, "harder edges or more noise")):
        for fit in fitted.compare(images.features, pixels):
            assert fit.outside
            assert reason in fit.note


def test_features_that_are_no_numbers_are_not_taken_for_near(fitted):
    images = seen(3, seed=6)
    assert outside(fitted, Seen(np.full_like(images.features, np.nan), images.pixels, None)).all()


def test_model_file_keeps_it_and_everything_else(fitted, tmp_path):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["weights"] = np.arange(3)
    assert read_appearance(path) is None
    for _ in range(2):
        write_appearance(path, fitted)
    read = read_appearance(path)
    assert (read.layer, read.largest_distance) == ("head_dense", fitted.largest_distance)
    images = seen(50, seed=7)
    np.testing.assert_allclose(read.distances(images.features), fitted.distances(images.features))
    with h5py.File(path) as file:
        assert file["weights"][()].tolist() == [0, 1, 2]
    assert [item.name for item in tmp_path.iterdir()] == ["model.h5"]


@pytest.mark.parametrize("damage", ["whitening", "means", "largest_distance", "shape"])
def test_damaged_statistics_are_left_out_and_the_model_still_serves(fitted, tmp_path, damage):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_appearance(path, fitted)
    with h5py.File(path, "r+") as file:
        group = file["real_vs_ai_appearance"]
        if damage == "shape":
            del group["means"]
            group["means"] = np.zeros((2, 3))
        elif damage in group.attrs:
            del group.attrs[damage]
        else:
            del group[damage]
    assert read_appearance(path) is None


def test_sharpness_is_the_mean_absolute_laplacian_of_the_greys():
    ramp = np.tile(np.arange(16, dtype=np.uint8)[None, None, :, None] * 10, (1, 16, 1, 3))
    assert sharpness(ramp) == pytest.approx([0])
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert sharpness(np.stack([board] * 3, axis=-1)[None]) == pytest.approx([4 * 255])
