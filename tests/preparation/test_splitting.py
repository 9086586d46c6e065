"""Raw data sets become splits: layouts are recognised, broken files set apart, nothing is lost."""

from __future__ import annotations

import csv
import io
import shutil

import pytest
from PIL import Image

from real_vs_ai.core.config import MANIFEST_COLUMNS
from real_vs_ai.preparation import image_files
from real_vs_ai.preparation.layouts import FLAT, TRAIN_TEST, LayoutError, find_layout, find_sources
from real_vs_ai.preparation.manifest import read_manifest
from real_vs_ai.preparation.splits import LabelConflictError
from real_vs_ai.preparation.splitting import split_sources
from tests.preparation.material import (
    FOUR_TO_ONE,
    image_bytes,
    make_flat,
    make_train_test,
    snapshot,
    split,
    split_options,
    write_images,
)


def outcomes_of(summary):
    return {row.path: (row.outcome, row.detail) for row in summary.outcomes}


@pytest.mark.parametrize(
    "names", [("GeneratedArt", "RealArt"), ("fake_images", "real_images"), ("AiArtData", "REAL")]
)
def test_flat_class_folders_become_fake_and_real(tmp_path, names):
    make_flat(tmp_path / "set", names=names)
    split(tmp_path / "set", tmp_path / "split")
    for part, count in (("train", 14), ("validation", 3), ("test", 3)):
        for label in ("Fake", "Real"):
            assert len(list((tmp_path / "split" / "set" / part / label).iterdir())) == count


def test_three_unknown_classes_keep_their_names(tmp_path):
    make_flat(tmp_path / "set", names=("benign", "malignant", "normal"))
    summary = split(tmp_path / "set", tmp_path / "split")
    assert {row.label for row in summary.rows} == {"benign", "malignant", "normal"}


@pytest.mark.parametrize(
    "train, test", [("train", "test"), ("Train", "TEST"), ("training", "Testing")]
)
def test_given_test_stays_and_train_gives_validation(tmp_path, train, test):
    make_train_test(tmp_path / "set")
    for name, wanted in (("train", train), ("test", test)):
        # Where case does not count, a folder takes another spelling by way of another name.
        (tmp_path / "set" / name).rename(tmp_path / "set" / "moved")
        (tmp_path / "set" / "moved").rename(tmp_path / "set" / wanted)
    before = snapshot(tmp_path / "set")
    summary = split(tmp_path / "set", tmp_path / "split", fractions=FOUR_TO_ONE)
    assert snapshot(tmp_path / "set") == before
    by_split = {
        s: {r.sha256 for r in summary.rows if r.split == s} for s in ("train", "validation", "test")
    }
    assert {name: len(hashes) for name, hashes in by_split.items()} == {
        "train": 32,
        "validation": 8,
        "test": 12,
    }
    assert by_split["test"] == set(snapshot(tmp_path / "set" / test).values())


def test_given_validation_folder_is_kept_as_it_is(tmp_path):
    make_train_test(tmp_path / "set")
    for i, name in enumerate(("FAKE", "REAL")):
        write_images(tmp_path / "set" / "valid" / name, 3, seed=900 + i)
    summary = split(tmp_path / "set", tmp_path / "split", fractions=FOUR_TO_ONE)
    validation = {row.sha256 for row in summary.rows if row.split == "validation"}
    assert validation == set(snapshot(tmp_path / "set" / "valid").values())


def test_wrapping_folders_are_looked_through(tmp_path):
    make_flat(tmp_path / "set" / "archive" / "images")
    assert find_layout(tmp_path / "set").kind == FLAT
    summary = split(tmp_path / "set", tmp_path / "split")
    assert len(summary.rows) == 40


def test_wrong_layout_names_what_was_found_and_the_right_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_flat(tmp_path / "data" / "raw" / "flat")
    make_train_test(tmp_path / "data" / "raw" / "nested")
    with pytest.raises(LayoutError, match=r"found flat class folders.*Use DataSplitD1\.py"):
        find_sources([tmp_path / "data" / "raw" / "flat"], kind=TRAIN_TEST)
    with pytest.raises(LayoutError, match=r"found train and test folders.*Use DataSplitD2\.py"):
        find_sources([tmp_path / "data" / "raw" / "nested"], kind=FLAT)
    assert [layout.root.name for layout in find_sources([], kind=FLAT)] == ["flat"]
    assert [layout.root.name for layout in find_sources([], kind=TRAIN_TEST)] == ["nested"]
    shutil.rmtree(tmp_path / "data" / "raw" / "flat")
    with pytest.raises(LayoutError, match=r"found none\..*nested, found train and test folders"):
        find_sources([], kind=FLAT)


@pytest.mark.parametrize(
    "folders, message",
    [
        (["train/FAKE", "train/REAL"], "Expected train and test folders"),
        (["train/FAKE", "train/REAL", "test/FAKE"], "same class folders in every split"),
        (["train/FAKE", "test/FAKE"], "two class folders or more"),
        (["train/FAKE", "Training/FAKE", "test/FAKE"], "two of which mean the same"),
        (["train/FAKE", "test/FAKE", "extra/FAKE"], "also extra/"),
        (["fake_images"], "at least two class folders"),
        (["fake", "generated"], "which mean one: Fake/"),
        ([], "found no folders"),
    ],
)
def test_unknown_layout_is_refused_with_what_was_found(tmp_path, folders, message):
    (tmp_path / "set").mkdir()
    for i, folder in enumerate(folders):
        write_images(tmp_path / "set" / folder, 2, seed=i)
    with pytest.raises(LayoutError, match=message):
        find_layout(tmp_path / "set")


def test_second_copies_are_dropped_and_reported_or_share_a_split(tmp_path):
    make_flat(tmp_path / "set")
    folder = tmp_path / "set" / "RealArt"
    for i in range(10):
        shutil.copy(folder / f"{i}.jpg", folder / f"copy{i}.jpg")
    summary = split(tmp_path / "set", tmp_path / "one")
    copies = {f"RealArt/copy{i}.jpg": ("second copy", f"RealArt/{i}.jpg") for i in range(10)}
    assert outcomes_of(summary) == copies
    assert len(summary.rows) == 40
    kept = split(tmp_path / "set", tmp_path / "other", keep_duplicates=True)
    assert len(kept.rows) == 50
    splits = {}
    for row in kept.rows:
        assert splits.setdefault(row.sha256, row.split) == row.split


def test_same_content_under_two_labels_stops_before_anything_is_written(tmp_path):
    make_flat(tmp_path / "set")
    shutil.copy(tmp_path / "set" / "RealArt" / "0.jpg", tmp_path / "set" / "GeneratedArt" / "x.jpg")
    with pytest.raises(LabelConflictError, match=r"GeneratedArt/x\.jpg"):
        split(tmp_path / "set", tmp_path / "split")
    assert snapshot(tmp_path / "split", hidden=False) == {}


BROKEN = {
    "zero.jpg": b"",
    "text.jpg": b"this is no image",
    "truncated.jpg": image_bytes(1, size=(64, 64))[:-300],
    "truncated.png": image_bytes(2, size=(64, 64), file_format="PNG")[:-300],
    "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "half.gif": image_bytes(3, size=(64, 64), file_format="GIF")[:200],
}


def test_broken_images_go_to_quarantine_with_their_reason(tmp_path):
    make_flat(tmp_path / "set")
    for name, data in BROKEN.items():
        (tmp_path / "set" / "RealArt" / name).write_bytes(data)
    summary = split(tmp_path / "set", tmp_path / "split")
    outcomes = outcomes_of(summary)
    quarantine = tmp_path / "split" / "set" / "quarantine" / "RealArt"
    for name, data in BROKEN.items():
        outcome, reason = outcomes[f"RealArt/{name}"]
        assert outcome == "quarantined"
        assert reason
        assert (quarantine / name).read_bytes() == data
    assert len(summary.rows) == 40


def test_images_are_recognised_by_content_not_name(tmp_path):
    make_flat(tmp_path / "set")
    folder = tmp_path / "set" / "RealArt"
    (folder / "lies.jpg").write_bytes(image_bytes(77, file_format="PNG"))
    (folder / "bare").write_bytes(image_bytes(78))
    (folder / "notes.txt").write_text("taken in May")
    summary = split(tmp_path / "set", tmp_path / "split")
    outcomes = outcomes_of(summary)
    assert outcomes["RealArt/lies.jpg"] == (
        "kept, wrong extension",
        "the name says .jpg, the content is PNG",
    )
    assert outcomes["RealArt/notes.txt"][0] == "not an image"
    by_origin = {row.origin.rsplit("/", 1)[-1]: row for row in summary.rows}
    assert by_origin["lies.jpg"].format == "PNG"
    assert by_origin["bare"].path.endswith("/bare.jpg")


def test_manifest_describes_every_file_and_the_report_every_other(tmp_path):
    make_flat(tmp_path / "set")
    (tmp_path / "set" / "RealArt" / "zero.jpg").write_bytes(b"")
    split(tmp_path / "set", tmp_path / "split")
    folder = tmp_path / "split" / "set"
    rows = read_manifest(folder / "manifest.csv")
    with (folder / "manifest.csv").open() as file:
        assert tuple(next(csv.reader(file))) == MANIFEST_COLUMNS
    files = snapshot(folder)
    assert {row.path: row.sha256 for row in rows} == {
        path: digest
        for path, digest in files.items()
        if path.count("/") == 2 and not path.startswith("quarantine")
    }
    for row in rows:
        assert (row.width, row.height, row.format) == (8, 8, "JPEG")
        assert (tmp_path / row.origin).read_bytes() == (folder / row.path).read_bytes()


def test_files_next_to_class_folders_are_reported(tmp_path):
    make_train_test(tmp_path / "set" / "inner")
    loose = {"notes.txt", "inner/a.txt", "inner/train/b.jpg"}
    for path in loose:
        (tmp_path / "set" / path).write_bytes(image_bytes(77))
    (tmp_path / "set" / "inner" / ".hidden").touch()
    summary = split(tmp_path / "set", tmp_path / "split", fractions=FOUR_TO_ONE)
    outcomes = outcomes_of(summary)
    assert {path for path, (kind, _) in outcomes.items() if kind == "in no class folder"} == loose
    assert not loose & {row.origin.removeprefix("set/") for row in summary.rows}


def test_exif_turned_images_are_recorded_upright(tmp_path):
    make_flat(tmp_path / "set")
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG", exif=exif)
    (tmp_path / "set" / "RealArt" / "turned.jpg").write_bytes(buffer.getvalue())
    summary = split(tmp_path / "set", tmp_path / "split")
    row = next(row for row in summary.rows if row.origin.endswith("turned.jpg"))
    assert (row.width, row.height) == (10, 20)


def test_names_differing_by_case_or_depth_all_arrive(tmp_path):
    make_flat(tmp_path / "set")
    folder = tmp_path / "set" / "RealArt"
    (folder / "deep").mkdir()
    (folder / "deep" / "0.jpg").write_bytes(image_bytes(501))
    (folder / "A.JPG").write_bytes(image_bytes(502))
    (folder / "a.jpg").write_bytes(image_bytes(503))
    summary = split(tmp_path / "set", tmp_path / "split")
    assert len(summary.rows) == 43
    assert set(snapshot(tmp_path / "set").values()) == {row.sha256 for row in summary.rows}


def test_output_is_equal_on_repeat_and_with_more_workers(tmp_path):
    make_flat(tmp_path / "set", count=600)
    split(tmp_path / "set", tmp_path / "one" / "split", confounds=True)
    split(tmp_path / "set", tmp_path / "two" / "split", confounds=True, workers=2)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_existing_splits_are_refused_passed_over_or_replaced(tmp_path):
    make_flat(tmp_path / "a")
    make_flat(tmp_path / "b", seed=2)
    split(tmp_path / "a", tmp_path / "split")
    before = snapshot(tmp_path / "split")
    with pytest.raises(FileExistsError, match="--overwrite"):
        split(tmp_path / "a", tmp_path / "split")
    layouts = [find_layout(tmp_path / "a"), find_layout(tmp_path / "b")]
    done = split_sources(layouts, output_dir=tmp_path / "split", options=split_options())
    assert [summary.output_dir.name for summary in done] == ["b"]
    assert before.items() <= snapshot(tmp_path / "split").items()
    replaced = split(tmp_path / "a", tmp_path / "split", overwrite=True, seed=7)
    assert len(replaced.rows) == 40
    after = snapshot(tmp_path / "split")
    assert after["a/manifest.csv"] != before["a/manifest.csv"]


@pytest.mark.parametrize("output", ["", "set", "set/RealArt", "set/deeper"])
def test_split_never_replaces_its_data_set(tmp_path, output):
    make_flat(tmp_path / "set")
    make_flat(tmp_path / "set" / "RealArt" / "set", count=1)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="output apart from its input"):
        split(tmp_path / "set", tmp_path / output, overwrite=True)
    assert snapshot(tmp_path, hidden=True) == before


def test_too_large_file_is_hashed_in_pieces(tmp_path, monkeypatch):
    make_flat(tmp_path / "set")
    huge = tmp_path / "set" / "RealArt" / "huge.jpg"
    huge.write_bytes(bytes(5_000))
    whole, read = image_files.read_image_file, []

    def read_whole(path):
        data = whole(path, max_bytes=4_999)
        read.append(path)
        return data

    monkeypatch.setattr(image_files, "read_image_file", read_whole)
    summary = split(tmp_path / "set", tmp_path / "split")
    expected = ("quarantined", "file too large: 5,000 bytes, the limit is 4,999")
    assert outcomes_of(summary)["RealArt/huge.jpg"] == expected
    assert (tmp_path / "split/set/quarantine/RealArt/huge.jpg").is_file()
    assert len(read) == 40
