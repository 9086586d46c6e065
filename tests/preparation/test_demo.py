"""The embedded demo has archives in the two real layouts and says what they hold."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from real_vs_ai.images import ImageError, open_image
from real_vs_ai.preparation.demo import (
    load_photographs,
    make_demo_archives,
    random_crop,
    resynthesise,
)

COUNTS = {"flat_images": 14, "train_images": 12, "test_images": 6}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return make_demo_archives(tmp_path_factory.mktemp("demo"), seed=1, **COUNTS)


def read_files(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_both_layouts_hold_the_stated_numbers_of_images(archives):
    counts = {(archive, folder): files for archive, folder, files in archives.rows}

    assert counts == {
        ("demo-flat.zip", "fake_images"): 14,
        ("demo-flat.zip", "real_images"): 14 + 6 + 1,
        ("demo-train-test.zip", "train/FAKE"): 12 + 6,
        ("demo-train-test.zip", "train/REAL"): 12,
        ("demo-train-test.zip", "test/FAKE"): 6,
        ("demo-train-test.zip", "test/REAL"): 6 + 6,
    }


def test_one_file_is_broken_and_some_contents_leak(archives):
    flat, train_test = read_files(archives.flat), read_files(archives.train_test)
    broken = []
    for name, data in {**flat, **train_test}.items():
        try:
            open_image(data)
        except ImageError:
            broken.append(name)
    train = {data for name, data in train_test.items() if name.startswith("train/")}
    test = {data for name, data in train_test.items() if name.startswith("test/")}

    assert broken == ["real_images/broken.jpg"]
    assert len(train & test) == 6


def test_only_the_same_seed_gives_the_same_bytes(archives, tmp_path):
    again = make_demo_archives(tmp_path / "again", seed=1, **COUNTS)
    other = make_demo_archives(tmp_path / "other", seed=2, **COUNTS)

    assert again.flat.read_bytes() == archives.flat.read_bytes()
    assert again.train_test.read_bytes() == archives.train_test.read_bytes()
    assert other.flat.read_bytes() != archives.flat.read_bytes()


def test_an_archive_with_other_content_is_never_written_over(tmp_path):
    (tmp_path / "demo-flat.zip").write_bytes(b"mine")

    with pytest.raises(FileExistsError, match=r"demo-flat\.zip already exists"):
        make_demo_archives(tmp_path, seed=1, **COUNTS)
    assert (tmp_path / "demo-flat.zip").read_bytes() == b"mine"


def test_format_and_size_do_not_give_the_class_away(archives):
    files = read_files(archives.flat)
    del files["real_images/broken.jpg"]
    sizes = {"real_images": set(), "fake_images": set()}
    for name, data in files.items():
        if "copy-of-" not in name:
            sizes[name.split("/")[0]].add((name.split("/")[1], open_image(data).shape))

    # The n-th image of either class has the same size.
    assert sizes["real_images"] == sizes["fake_images"]
    assert all(data.startswith(b"\xff\xd8") for data in files.values())


def test_resynthesis_leaves_a_peak_at_the_checkerboard_frequency():
    random = np.random.default_rng(0)
    photograph = load_photographs()["astronaut.png"]
    ratios = []
    for _ in range(20):
        crop = random_crop(photograph, side=32, random=random)
        fake = resynthesise(crop, random=random)
        ratios.append(checkerboard_energy(fake) / checkerboard_energy(crop))

    assert np.median(ratios) > 3
    assert fake.shape == crop.shape
    assert fake.dtype == np.uint8


def checkerboard_energy(pixels):
    """Energy at half and quarter of the sampling rate against the mean of the spectrum."""
    grey = pixels.astype(np.float64).mean(axis=2)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean()))
    half, quarter = len(grey) // 2, len(grey) // 4
    peaks = [spectrum[half, 0], spectrum[0, half], spectrum[quarter, 0], spectrum[0, quarter]]
    return (np.mean(peaks) + 1e-9) / (spectrum.mean() + 1e-9)
