"""Augmented copies are seeded one by one and keep their originals' format."""

from __future__ import annotations

import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, JpegImagePlugin

from real_vs_ai.core.config import MAX_IMAGE_BYTES, is_augmented_name
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.augmentation import (
    Original,
    copy_names,
    list_originals,
    names_for_copies,
    plan_copies,
)
from real_vs_ai.preparation.manifest import (
    MAX_NAME_BYTES,
    ManifestRow,
    read_manifest,
    write_manifest,
)
from real_vs_ai.preparation.merging import move_augmented as move
from tests.preparation.material import augment, image_bytes, make_merged, merge, snapshot


@pytest.fixture
def data(tmp_path):
    return make_merged(tmp_path / "data")


def originals(n_fake, n_real):
    return [
        Original(ManifestRow(f"{label}/{i}.jpg", "", label, "train", "s", 8, 8, "", ""), "")
        for label, n in (("Fake", n_fake), ("Real", n_real))
        for i in range(n)
    ]


@pytest.mark.parametrize("n_fake, n_real, total", [(10, 10, 7), (3, 17, 100), (1, 2, 50)])
def test_total_is_spread_evenly_over_classes_and_images(n_fake, n_real, total):
    plan = plan_copies(originals(n_fake, n_real), total=total, copies=None, seed=1)
    by_class = Counter()
    for original, count in plan:
        by_class[original.row.label] += count
    assert sum(by_class.values()) == total
    assert abs(by_class["Fake"] - by_class["Real"]) <= 1
    for label, n in (("Fake", n_fake), ("Real", n_real)):
        counts = [count for original, count in plan if original.row.label == label]
        counts += [0] * (n - len(counts))
        assert max(counts) - min(counts) <= 1


def test_default_total_is_the_number_of_images_up_to_20000():
    small = plan_copies(originals(30, 30), total=None, copies=None, seed=1)
    assert sum(count for _, count in small) == 60
    large = plan_copies(originals(12_000, 12_000), total=None, copies=None, seed=1)
    assert sum(count for _, count in large) == 20_000


def test_copies_go_next_to_train_and_change_no_split(data):
    before = snapshot(data)
    augment(data, copies=3)
    after = snapshot(data)
    assert before.items() <= after.items()
    new = set(after) - set(before)
    assert {path.split("/")[0] for path in new} == {"augmented_train"}
    assert len([path for path in new if path.endswith(".jpg")]) == 36


def test_moving_adds_copies_and_rows_and_nothing_else(data):
    augment(data, copies=2)
    rows = read_manifest(data / "augmented_train" / "manifest.csv")
    write_manifest(data / "manifest.csv", [])
    before = snapshot(data)
    own = data / "augmented_train" / "Fake" / "mine.jpg"
    own.write_bytes(b"mine")
    move(data)
    after = snapshot(data)
    assert [*snapshot(data / "augmented_train")] == ["Fake/mine.jpg"]
    kept = {p: d for p, d in before.items() if not p.startswith(("augmented_train", "manifest"))}
    assert kept.items() <= after.items()
    moved = {row.path: row for row in read_manifest(data / "manifest.csv")}
    assert len(moved) == len(rows) == 24
    for path, row in moved.items():
        assert after[path] == row.sha256
        assert row.split == "train"
        assert (data / row.origin).is_file()
        assert row.path.startswith(f"train/{row.label}/")


def test_making_and_moving_copies_again_doubles_nothing(data):
    write_manifest(data / "manifest.csv", [])
    augment(data, copies=2)
    move(data)
    before = snapshot(data)
    with pytest.raises(FileNotFoundError, match="24 augmented copies are in"):
        move(data)
    assert len(list_originals(data / "train")) == 12
    augment(data, copies=2)
    assert move(data).already_there == 24
    assert snapshot(data) == before
    augment(data, copies=3)
    assert len(move(data).rows) == 12
    assert not any(p.name.count("__augmented") > 1 for p in data.rglob("*.jpg"))


def test_renamed_copy_is_not_copied_again(data):
    augment(data, copies=1)
    write_manifest(data / "manifest.csv", [])
    move(data)
    rows = read_manifest(data / "manifest.csv")
    first = rows[0]
    renamed = first.path.replace("__augmented1", "-warped")
    (data / first.path).rename(data / renamed)
    fields = {name: getattr(first, name) for name in first.__slots__}
    write_manifest(data / "manifest.csv", [type(first)(**{**fields, "path": renamed}), *rows[1:]])
    assert f"train/{list_originals(data / 'train')[0].row.path}" != renamed
    assert len(list_originals(data / "train")) == 12


def test_moving_never_overwrites_another_file(data):
    augment(data, copies=1)
    victim = data / "train" / "Fake" / "0__augmented1.jpg"
    victim.write_bytes(b"mine")
    before = snapshot(data)
    with pytest.raises(FileExistsError, match="other content"):
        move(data)
    assert snapshot(data) == before


def test_moving_incomplete_copies_is_refused(data):
    augment(data, copies=1)
    next((data / "augmented_train" / "Fake").iterdir()).unlink()
    with pytest.raises(ValueError, match="1 missing"):
        move(data)


def test_pixels_depend_on_neither_order_nor_workers_nor_other_copies(data, tmp_path):
    augment(data, copies=2)
    few = snapshot(data / "augmented_train")
    shutil.rmtree(data / "augmented_train")
    augment(data, copies=4, pool=Pool(2))
    many = snapshot(data / "augmented_train")
    few_images = {p: d for p, d in few.items() if p.endswith(".jpg")}
    assert few_images.items() <= many.items()
    shutil.rmtree(data / "augmented_train")
    augment(data, copies=2, seed=43)
    other = snapshot(data / "augmented_train")
    assert not {d for p, d in other.items() if p in few_images} & set(few_images.values())


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 35, "subsampling": "4:2:0"},
        {"quality": 95, "subsampling": "4:4:4"},
        {"quality": 80, "subsampling": "4:2:2", "progressive": True},
        {"qtables": [list(range(1, 65)), list(range(2, 66))], "subsampling": "4:4:4"},
    ],
)
def test_jpeg_copies_keep_tables_subsampling_and_scan_order(data, options):
    path = data / "train" / "Fake" / "special.jpg"
    path.write_bytes(image_bytes(7, size=(32, 24), **options))
    augment(data, copies=1)
    with (
        Image.open(path) as original,
        Image.open(data / "augmented_train" / "Fake" / "special__augmented1.jpg") as copy,
    ):
        assert copy.size == original.size
        assert copy.quantization == original.quantization
        assert JpegImagePlugin.get_sampling(copy) == JpegImagePlugin.get_sampling(original)
        assert copy.info.get("progressive") == original.info.get("progressive")


@pytest.mark.parametrize(
    "name, file_format, expected",
    [
        ("a.png", "PNG", ("a__augmented1.png", "PNG", "RGB")),
        ("a.webp", "WEBP", ("a__augmented1.webp", "WEBP", "RGB")),
        ("a.gif", "GIF", ("a__augmented1.png", "PNG", "RGB")),
        ("a.BMP", "BMP", ("a__augmented1.BMP", "BMP", "RGB")),
        ("lies.jpg", "PNG", ("lies__augmented1.png", "PNG", "RGB")),
        ("grey.jpg", "grey JPEG", ("grey__augmented1.jpg", "JPEG", "L")),
    ],
)
def test_other_formats_stay_or_become_lossless(data, name, file_format, expected):
    path = data / "train" / "Fake" / name
    path.write_bytes(image_bytes(3, file_format=file_format.split()[-1]))
    if file_format == "grey JPEG":
        Image.open(path).convert("L").save(path, "JPEG")
    augment(data, copies=1)
    with Image.open(data / "augmented_train" / "Fake" / expected[0]) as copy:
        assert (copy.format, copy.mode) == expected[1:]


def test_too_large_original_is_reported_without_being_read(data):
    path = sorted((data / "train" / "Fake").iterdir())[0]
    with path.open("r+b") as file:
        # A hole: it takes no room on disk.
        file.truncate(MAX_IMAGE_BYTES + 1)
    tracemalloc.start()
    try:
        augment(data, copies=1)
        assert tracemalloc.get_traced_memory()[1] < MAX_IMAGE_BYTES
    finally:
        tracemalloc.stop()
    assert "file too large" in (data / "augmented_train" / "report.csv").read_text()


def test_unreadable_original_is_reported_and_the_others_are_made_and_shown(data):
    (data / "train" / "Fake" / "broken.jpg").write_bytes(b"no image")
    summary = augment(data, copies=1)
    assert len(summary.rows) == 12
    assert [row.path for row in summary.failed] == ["train/Fake/broken.jpg"]
    assert "train/Fake/broken.jpg" in (data / "augmented_train" / "report.csv").read_text()
    with Image.open(data / "augmented_train" / "figures" / "augmentation.png") as sheet:
        assert sheet.width > 200
        assert len(sheet.getcolors(maxcolors=1_000_000)) > 100


@pytest.mark.parametrize("output", ["train", "train/copies", ".", "Fake/../train"])
def test_copies_never_take_the_place_of_their_originals(data, output):
    before = snapshot(data)
    with pytest.raises(ValueError, match="output apart from its input"):
        augment(data, output_dir=data / output, overwrite=True)
    assert snapshot(data, hidden=True) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.rename(path.parents[2] / "test" / "Fake" / "was-0.jpg"),
        lambda path: path.write_bytes(image_bytes(12345)),
    ],
    ids=["moved to test", "replaced"],
)
def test_copies_whose_original_is_gone_are_refused(data, change):
    augment(data, copies=1)
    change(data / "train" / "Fake" / "0.jpg")
    before = snapshot(data)
    with pytest.raises(ValueError, match=r"1 of 12 copies.*DataAugmentation\.py --overwrite"):
        move(data)
    assert snapshot(data) == before


def halfway(data, monkeypatch):
    """A move that dies when its third copy is put in place."""
    moved = []

    def die(path, target):
        if "augmented1" in str(target):
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        return rename(path, target)

    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            move(data)
    assert len(list((data / "train").rglob("*augmented1*"))) == 2


def test_interrupted_move_is_finished_though_its_copies_are_gone(data, monkeypatch):
    write_manifest(data / "manifest.csv", [])
    augment(data, copies=1)
    halfway(data, monkeypatch)
    shutil.rmtree(data / "augmented_train")
    with pytest.raises(FileNotFoundError, match="12 augmented copies are in"):
        move(data)
    assert len(read_manifest(data / "manifest.csv")) == 12


def test_replacing_merge_ends_an_unfinished_move(tmp_path, monkeypatch):
    data = tmp_path / "data"
    make_merged(data / "split" / "set")
    merge([data / "split" / "set"], data, overwrite=True)
    augment(data, copies=1)
    halfway(data, monkeypatch)
    with pytest.raises(ValueError, match="MoveAugmentedImages"):
        merge([data / "split" / "set"], data)
    merge([data / "split" / "set"], data, overwrite=True)
    augment(data, copies=1, overwrite=True)
    assert len(move(data).rows) == 12
    assert len(read_manifest(data / "manifest.csv")) == 32


@pytest.mark.parametrize(
    "name, expected", [("a__augmented1.jpg", True), ("a__augmented.jpg", False), ("a.jpg", False)]
)
def test_names_of_copies_are_recognised(name, expected):
    assert is_augmented_name(f"Fake/{name}") is expected


def test_names_of_copies_of_different_originals_differ():
    long = "n" * 242
    originals = ["a.jpg", "a.gif", "a.png", "a.gif.png", f"{long}.gif", f"{long}.gif.png"]
    names = names_for_copies([f"Fake/{name}" for name in sorted(originals)])
    copies = {copy for name in names for copy in copy_names(name, 11, file_format="PNG")}
    assert len(copies) == 66
    assert all(len(copy) <= MAX_NAME_BYTES for copy in copies)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.jpg", "b.png", "b.webp"], ["a.jpg", "b.png", "b-2.webp"]),
        (["A.jpg", "a.JPG"], ["A.jpg", "a-2.JPG"]),
        (["s1/a.png", "s1_a.png", "s1_a-2.png"], ["s1_a.png", "s1_a-3.png", "s1_a-2.png"]),
        (["a.gif", "a.gif.png"], ["a.gif", "a.gif.png"]),
    ],
)
def test_names_that_copies_are_named_after(names, expected):
    assert names_for_copies([f"Fake/{name}" for name in names]) == expected
