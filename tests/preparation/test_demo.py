"""The embedded demo has archives in the two real layouts."""

from __future__ import annotations

import zipfile
from collections import Counter

import numpy as np
import pytest

from real_vs_ai.core.images import ImageError, open_image
from real_vs_ai.preparation.demo import (
    FLAT_NAME,
    SPLIT_NAME,
    load_photographs,
    make_demo_archives,
    random_crop,
    resynthesise,
)
from tests.preparation.material import snapshot

COUNTS = {"flat_images": 14, "train_images": 12, "test_images": 6}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_demo_archives(folder, seed=1, **COUNTS)
    return folder


def read_files(archive_path):
    with zipfile.ZipFile(archive_path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_both_layouts_hold_the_stated_numbers_of_images(archives):
    counts = Counter(
        (path.name, name.rpartition("/")[0])
        for path in archives.iterdir()
        for name in read_files(path)
    )

    assert counts == {
        ("demo-flat.zip", "fake_images"): 14,
        ("demo-flat.zip", "real_images"): 14 + 6 + 1,
        ("demo-train-test.zip", "train/FAKE"): 12 + 6,
        ("demo-train-test.zip", "train/REAL"): 12,
        ("demo-train-test.zip", "test/FAKE"): 6,
        ("demo-train-test.zip", "test/REAL"): 6 + 6,
    }


def test_one_file_is_broken_and_some_contents_leak(archives):
    flat, train_test = read_files(archives / FLAT_NAME), read_files(archives / SPLIT_NAME)
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
    make_demo_archives(tmp_path / "again", seed=1, **COUNTS)
    make_demo_archives(tmp_path / "other", seed=2, **COUNTS)

    assert snapshot(tmp_path / "again") == snapshot(archives)
    other = tmp_path / "other" / FLAT_NAME
    assert other.read_bytes() != (archives / FLAT_NAME).read_bytes()


def test_an_archive_with_other_content_is_never_written_over(tmp_path):
    (tmp_path / "demo-flat.zip").write_bytes(b"mine")

    with pytest.raises(FileExistsError, match=r"demo-flat\.zip already exists"):
        make_demo_archives(tmp_path, seed=1, **COUNTS)
    assert (tmp_path / "demo-flat.zip").read_bytes() == b"mine"


def test_format_and_size_do_not_give_the_class_away(archives):
    files = read_files(archives / FLAT_NAME)
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
