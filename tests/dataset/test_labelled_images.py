"""Labelled folders are listed in order and decoded; broken files are reported, caches reused."""

import csv

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import open_image, resize_image
from real_vs_ai.dataset import decoded_images
from real_vs_ai.dataset.decoded_images import decode_images
from real_vs_ai.dataset.labelled_images import fingerprint_images, list_labelled_images
from real_vs_ai.models.model_input import ModelInput

MEMORY = 2**30


def write_image(path, *, size=(12, 8), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        write_image(tmp_path / "train" / "REAL" / f"cifake__r{i}.png", seed=i)
        write_image(tmp_path / "train" / "FAKE" / f"f{i}.png", seed=10 + i)
    return tmp_path / "train"


def decode(images, **options):
    return decode_images(
        images,
        **{"model_input": ModelInput(8), "workers": 1, "max_memory_bytes": MEMORY, **options},
    )


def test_raw_folder_names_become_fake_0_and_real_1(folder):
    images = list_labelled_images(folder)
    assert images.class_names == ("Fake", "Real")
    assert images.paths == tuple(sorted(images.paths))
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.labels.dtype == np.int32
    assert images.counts == {"Fake": 3, "Real": 3}


def test_sources_come_from_the_name_prefix_and_the_manifest_wins(folder):
    assert list_labelled_images(folder).sources == ("", "", "", "cifake", "cifake", "cifake")
    with (folder.parent / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "source"])
        writer.writerow(["train/FAKE/f0.png", "other"])
        writer.writerow(["train/REAL/cifake__r0.png", "third"])
    sources = list_labelled_images(folder).sources
    assert sources == ("other", "", "", "third", "cifake", "cifake")


def test_three_classes_keep_their_names_sorted(tmp_path):
    for name in ("normal", "benign", "malignant"):
        write_image(tmp_path / name / "a.png")
    images = list_labelled_images(tmp_path)
    assert images.class_names == ("benign", "malignant", "normal")
    assert images.labels.tolist() == [0, 1, 2]


def test_given_class_order_decides_the_labels(folder):
    images = list_labelled_images(folder, class_names=("Real", "Fake"))
    assert images.labels.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "files, options, message",
    [
        (None, {}, r"DataMerger\.py"),
        ([], {}, "found no folders"),
        (["test/Fake/a.png", "train/Fake/a.png"], {}, "found the splits test, train"),
        (["FAKE/notes.txt", "REAL/a.png"], {}, "found none of Fake"),
        (["Fake/a.png"], {}, "found only Fake"),
        (
            ["Fake/a.png", "Real/a.png"],
            {"class_names": ("cat", "dog")},
            r"Expected the classes cat, dog .* found Fake, Real",
        ),
    ],
)
def test_folder_without_images_of_its_classes_is_refused(tmp_path, files, options, message):
    if files is not None:
        (tmp_path / "images").mkdir()
    for file in files or ():
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / file).touch()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        list_labelled_images(tmp_path / "images", **options)


def test_pixels_are_those_that_serving_decodes(folder):
    images = list_labelled_images(folder)
    decoded = decode(images)
    for path, pixels in zip(images.paths, decoded.inputs, strict=True):
        assert np.array_equal(pixels, resize_image(open_image(folder / path), 8))
    assert decoded.widths.tolist() == [12] * 6
    assert decoded.heights.tolist() == [8] * 6


def test_broken_files_are_reported_and_labels_still_match(folder):
    (folder / "FAKE" / "f1.png").write_bytes(b"not an image")
    (folder / "REAL" / "a.jpg").write_bytes(b"")
    images = list_labelled_images(folder)
    decoded = decode(images)
    assert [path for path, _ in decoded.failures] == ["FAKE/f1.png", "REAL/a.jpg"]
    assert "empty file" in decoded.failures[1][1]
    assert decoded.images.labels.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(
        decoded.inputs[1], resize_image(open_image(folder / decoded.images.paths[1]), 8)
    )


def test_worker_processes_and_memory_map_give_the_same_pixels(tmp_path):
    for i in range(210):
        write_image(tmp_path / "Fake" / f"{i}.png", seed=i, size=(9, 9))
        write_image(tmp_path / "Real" / f"{i}.png", seed=1000 + i, size=(9, 9))
    images = list_labelled_images(tmp_path)
    plain = decode(images)
    mapped = decode(images, workers=2, max_memory_bytes=0)
    assert isinstance(mapped.pixels, np.memmap)
    assert np.array_equal(plain.pixels, mapped.pixels)


def test_too_small_a_disk_for_decoding_is_reported_first(folder, monkeypatch):
    usage = decoded_images.shutil._ntuple_diskusage(100, 90, 10)
    monkeypatch.setattr(decoded_images.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="cache_dir"):
        decode(list_labelled_images(folder), max_memory_bytes=0)


def test_cache_is_used_again_until_a_file_changes(folder, tmp_path):
    images = list_labelled_images(folder)
    cache = tmp_path / "cache"
    first = decode(images, cache_dir=cache)
    stored = next(cache.glob("*.npy"))
    np.save(stored, np.zeros_like(first.pixels))
    assert not decode(images, cache_dir=cache).pixels.any()
    before = fingerprint_images(images)
    write_image(folder / "REAL" / "cifake__r0.png", seed=99, size=(5, 5))
    assert fingerprint_images(images) != before
    assert decode(images, cache_dir=cache).pixels.any()


def test_damaged_cache_is_made_again(folder, tmp_path):
    images = list_labelled_images(folder)
    first = decode(images, cache_dir=tmp_path / "cache")
    next((tmp_path / "cache").glob("*.npy")).write_bytes(b"half")
    again = decode(images, cache_dir=tmp_path / "cache")
    assert np.array_equal(first.pixels, again.pixels)


def test_parts_of_all_sources_are_all_of_them_once(tmp_path):
    for number in range(13):
        for label in ("Fake", "Real"):
            path = tmp_path / label / f"source{number}__a.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    images = list_labelled_images(tmp_path)
    parts = [images.positions([f"{part}/5"])[0] for part in (1, 2, 3, 4, 5)]
    named = [{images.sources[i] for i in part} for part in parts]
    assert sorted(map(len, named)) == [2, 2, 3, 3, 3]
    assert len(set.union(*named)) == 13
    assert sorted(np.concatenate(parts)) == list(range(26))
    with pytest.raises(InputError, match="Every image"):
        images.positions(["1/1"])
