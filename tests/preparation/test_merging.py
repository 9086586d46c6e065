"""Split sources become one data set: names stay distinct, no content is lost or straddles."""

from __future__ import annotations

import shutil

import pytest

from real_vs_ai.preparation.manifest import ManifestRow, read_manifest, write_manifest
from tests.preparation import material
from tests.preparation.material import (
    image_bytes,
    make_flat,
    make_merged,
    smooth_image,
    snapshot,
    split,
)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """data/split with two sources of the same file names."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    for seed, name in enumerate(("first", "second"), start=1):
        make_flat(data / "raw" / name, seed=seed)
        split(data / "raw" / name, data / "split")
    return tmp_path


def merge(workplace, *folders, **changes):
    return material.merge(list(folders), workplace / "data", **changes)


def images_in(data):
    return {
        path: digest
        for path, digest in snapshot(data).items()
        if path.split("/")[0] in {"train", "validation", "test"}
    }


def test_every_image_of_every_source_arrives_under_its_source_name(workplace):
    summary = merge(workplace)
    assert len(summary.rows) == 80
    raw = [*snapshot(workplace / "data" / "raw").values()]
    assert sorted(images_in(workplace / "data").values()) == sorted(raw)
    assert {path.rsplit("/", 1)[1].split("__")[0] for path in images_in(workplace / "data")} == {
        "first",
        "second",
    }


def test_manifest_has_every_image_and_where_it_came_from(workplace):
    merge(workplace)
    data = workplace / "data"
    rows = read_manifest(data / "manifest.csv")
    assert {row.path: row.sha256 for row in rows} == images_in(data)
    for row in rows:
        assert row.path.split("/")[:2] == [row.split, row.label]
        assert (data / row.origin).read_bytes() == (data / row.path).read_bytes()
        assert row.path.rsplit("/", 1)[1].startswith(f"{row.source}__")


def test_user_made_splits_without_manifest_are_understood(workplace):
    own = workplace / "own"
    make_merged(own)
    for part in ("train", "validation", "test"):
        (own / part / "Fake").rename(own / part / "GeneratedArt")
        (own / part / "Real").rename(own / part / "RealArt")
    (own / "validation").rename(own / "valid")
    (own / "train" / "RealArt" / "broken.jpg").write_bytes(b"no image")
    for name in ("loose.jpg", "train/loose.jpg"):
        (own / name).write_bytes(image_bytes(998))
    summary = merge(workplace, own)
    assert {row.label for row in summary.rows} == {"Fake", "Real"}
    assert len(summary.rows) == 20
    assert {(row.path, row.outcome) for row in summary.outcomes} == {
        ("own/train/RealArt/broken.jpg", "quarantined"),
        ("own/loose.jpg", "in no class folder"),
        ("own/train/loose.jpg", "in no class folder"),
    }


def test_files_a_user_added_or_removed_by_hand_are_followed(workplace):
    folder = workplace / "data" / "split" / "first" / "train" / "Fake"
    removed = sorted(folder.iterdir())[0]
    removed.unlink()
    (folder / "added.jpg").write_bytes(image_bytes(999))
    names = {row.path.rsplit("/", 1)[1] for row in merge(workplace).rows if row.label == "Fake"}
    assert "first__added.jpg" in names


def test_content_of_two_sources_is_kept_once(workplace):
    sources = workplace / "data" / "split"
    test_image = sorted((sources / "first" / "test" / "Fake").iterdir())[0]
    train_image = sorted((sources / "first" / "train" / "Real").iterdir())[0]
    shutil.copy(test_image, sources / "second" / "train" / "Fake" / "leak.jpg")
    shutil.copy(train_image, sources / "second" / "train" / "Real" / "double.jpg")
    summary = merge(workplace)
    outcomes = {row.path.rsplit("/", 1)[1]: row.outcome for row in summary.outcomes}
    assert outcomes == {"leak.jpg": "is in another split", "double.jpg": "second copy"}
    assert len(summary.rows) == 80
    kept = merge(workplace, overwrite=True, keep_duplicates=True)
    assert len(kept.rows) == 81


def test_sources_of_different_classes_are_refused(workplace):
    make_flat(workplace / "scans", names=("benign", "malignant"), seed=8)
    split(workplace / "scans", workplace / "data" / "split")
    with pytest.raises(ValueError, match="same classes in every source"):
        merge(workplace)
    summary = merge(workplace, workplace / "data" / "split" / "scans")
    assert {row.label for row in summary.rows} == {"benign", "malignant"}


def test_existing_data_is_refused_or_replaced_as_a_whole(workplace):
    merge(workplace)
    before = snapshot(workplace / "data")
    with pytest.raises(FileExistsError, match="--overwrite"):
        merge(workplace)
    assert snapshot(workplace / "data") == before
    merge(workplace, overwrite=True)
    assert snapshot(workplace / "data") == before
    merge(workplace, workplace / "data" / "split" / "first", overwrite=True)
    assert len(images_in(workplace / "data")) == 40


def test_nothing_to_merge_names_the_script_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"DataSplitD1\.py or DataSplitD2\.py"):
        merge(tmp_path)


@pytest.fixture
def alike(workplace):
    """A picture in the test images of one source, and nearly the same in train of the other."""
    sources = workplace / "data" / "split"
    smooth_image(7).save(sources / "first" / "test" / "Fake" / "picture.jpg", quality=95)
    smooth_image(7).save(sources / "second" / "train" / "Fake" / "again.jpg", quality=80)
    return workplace


def test_grouped_near_duplicates_of_two_sources_stay_in_test(alike):
    summary = merge(alike, near_duplicates="group")
    left_out = {row.path: row.detail for row in summary.outcomes if "another split" in row.outcome}
    assert left_out == {"split/second/train/Fake/again.jpg": "split/first/test/Fake/picture.jpg"}
    assert len(summary.rows) == 81


def test_reported_near_duplicates_of_two_sources_are_listed_and_kept(alike):
    before = merge(alike)
    after = merge(alike, near_duplicates="report", overwrite=True)
    assert after.rows == before.rows
    listed = [row for row in after.outcomes if row.outcome == "kept, near-duplicate"]
    assert [row.path for row in listed] == ["split/second/train/Fake/again.jpg"]
    assert "in test" in listed[0].detail


def test_a_renamed_copy_of_a_source_adds_nothing(workplace):
    sources = workplace / "data" / "split"
    shutil.copytree(sources / "first", sources / "third")
    summary = merge(workplace)
    assert len(summary.rows) == 80
    assert {row.outcome for row in summary.outcomes} == {"second copy"}


def test_merged_data_is_no_source_of_itself(tmp_path):
    make_merged(tmp_path / "data")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="output apart from its input"):
        merge(tmp_path, tmp_path / "data", overwrite=True)
    assert snapshot(tmp_path, hidden=True) == before


ODD_NAMES = ("a\rb.png", "c\nd.png", "e\r\nf.png", 'g"h,i.png', "j\udcff.png", "plain.png")


def test_names_with_line_breaks_and_quotes_come_back_unchanged(tmp_path):
    rows = [
        ManifestRow(name, "0" * 64, "Fake", "train", "s\rt", 1, 2, "PNG", f"raw/{name}")
        for name in sorted(ODD_NAMES)
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    assert read_manifest(tmp_path / "manifest.csv") == rows
