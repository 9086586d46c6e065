"""One rule says which files count as data, and files are written whole."""

from __future__ import annotations

import zipfile

import pytest

from real_vs_ai.core.files import atomic_write, iterate_files, list_files, list_folders, write_json
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.preparation.archives import plan_extraction
from real_vs_ai.preparation.layouts import find_layout
from real_vs_ai.serving.image_sources import iterate_sources

JUNK = (
    "Fake/.hidden.jpg",
    "Fake/._a.jpg",
    "Fake/.git/b.jpg",
    "Fake/__MACOSX/c.jpg",
    ".thumbnails/d.jpg",
)
DATA = ("Fake/a.jpg", "Real/b.jpg")


@pytest.fixture
def folder(tmp_path):
    for name in (*DATA, *JUNK):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "images"


def found_by_scoring(folder):
    return [source.name for source in iterate_sources([str(folder)])]


def found_by_scoring_zip(folder):
    archive = folder.parent / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (*DATA, *JUNK):
            file.write(folder / name, name)
    return [source.name for source in iterate_sources([str(archive)])]


def found_by_training(folder):
    return list(list_labelled_images(folder).paths)


def found_by_splitting(folder):
    return [path for paths in find_layout(folder).files.values() for path in paths]


def found_by_unpacking(folder):
    entries = [zipfile.ZipInfo(name) for name in (*DATA, *JUNK)]
    return list(plan_extraction(entries, archive_bytes=99).names.values())


@pytest.mark.parametrize(
    "find",
    [
        found_by_scoring,
        found_by_scoring_zip,
        found_by_training,
        found_by_splitting,
        found_by_unpacking,
    ],
)
def test_hidden_and_junk_files_are_ignored_everywhere(folder, find):
    found = find(folder)
    assert len(found) == len(DATA)
    assert all(name.endswith(end) for name, end in zip(sorted(found), DATA, strict=True))


def test_current_folder_is_walked_without_its_git_folder(folder, monkeypatch):
    monkeypatch.chdir(folder / "Fake")
    assert [source.name for source in iterate_sources(["."])] == ["a.jpg"]


def test_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("b/x", "a.txt", "a/z", "a/y/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == ["a.txt", "a/y/x", "a/z", "b/x"]
    walked = [path.relative_to(tmp_path).as_posix() for path in iterate_files(tmp_path)]
    assert walked == ["a/y/x", "a/z", "a.txt", "b/x"]


def test_links_count_only_where_they_are_wanted(tmp_path):
    (tmp_path / "x").touch()
    try:
        (tmp_path / "y").symlink_to(tmp_path / "x")
    except OSError:
        pytest.skip("no links here")
    assert list_files(tmp_path) == ["x"]
    assert list_files(tmp_path, links=True) == ["x", "y"]


def test_missing_folder_has_no_folders(tmp_path):
    assert list_folders(tmp_path / "none") == []


def test_interrupted_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    for options in ({}, {"alone": True}, {"edit": True}):
        with pytest.raises(KeyboardInterrupt), atomic_write(path, **options) as staging:
            staging.write_text("half")
            raise KeyboardInterrupt
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_edit_begins_with_the_content_of_the_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with atomic_write(path, edit=True) as staging:
        staging.write_text(staging.read_text() + " and new")
    assert path.read_text() == "old and new"


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    path = tmp_path / "x.txt"
    (tmp_path / ".staging.x.txt").write_text("left by a killed process")
    with atomic_write(path, alone=True) as staging:
        staging.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
