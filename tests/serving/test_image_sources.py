"""Inputs are scored in a stable order, each image once and under a clear name."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from real_vs_ai.core.images import ImageError
from real_vs_ai.serving.image_sources import (
    expand_inputs,
    iterate_sources,
    printable_name,
    read_source,
)
from tests.serving.trivial_model import encode, uniform_image


def names(*inputs, **options):
    return [source.name for source in iterate_sources([str(i) for i in inputs], **options)]


def test_folders_are_searched_for_images_in_stable_order(image_folder):
    (image_folder / "__MACOSX").mkdir()
    (image_folder / "__MACOSX" / "x.png").write_bytes(b"debris")
    found = [name.removeprefix(image_folder.as_posix()) for name in names(image_folder)]
    assert found == [
        *(f"/a/{i}.png" for i in range(5)),
        "/a/broken.jpg",
        *(f"/b/{i}.png" for i in range(5, 10)),
    ]


def test_inputs_keep_their_order_and_files_may_have_any_name(image_folder):
    last, first = image_folder / "notes.txt", image_folder / "b" / "7.png"
    assert names(first, last) == [first.as_posix(), last.as_posix()]


def test_an_image_that_two_inputs_hold_is_scored_once(image_folder):
    inside = image_folder / "a"
    assert len(names(inside, image_folder, inside / "1.png", image_folder)) == 11


def test_files_that_a_folder_skips_are_scored_when_named(image_folder):
    with zipfile.ZipFile(image_folder / "more.zip", "w") as archive:
        archive.writestr("z.png", b"data")
    (image_folder / "m.csv").write_text("path\na/0.png\n", encoding="utf-8")
    extra = [image_folder / name for name in ("more.zip", "notes.txt", "m.csv")]
    found = names(image_folder, *extra)
    assert len(found) == 11 + 3
    assert found[11:13] == [f"{extra[0].as_posix()}/z.png", extra[1].as_posix()]


def test_a_named_image_in_a_hidden_folder_is_scored(image_folder):
    hidden = image_folder / ".cache"
    (hidden / "deeper").mkdir(parents=True)
    files = [hidden / "b.png", hidden / "deeper" / "c.png", image_folder / "._d.png"]
    for file in files:
        file.write_bytes(b"data")
    assert names(image_folder, *files)[11:] == [file.as_posix() for file in files]
    # A named hidden folder brings its own images.
    assert names(image_folder, hidden, files[0])[11:] == [files[0].as_posix(), files[1].as_posix()]


def test_links_are_scored_once_and_folders_behind_them_too(image_folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.png").write_bytes(b"data")
    link_to_file, link_to_folder = image_folder / "link.png", image_folder / "linked"
    link_to_file.symlink_to(outside / "x.png")
    link_to_folder.symlink_to(outside, target_is_directory=True)
    assert len(names(image_folder, link_to_file)) == 11 + 1
    assert names(image_folder, link_to_folder)[12:] == [f"{link_to_folder.as_posix()}/x.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["endless", "pipe"])
def test_a_file_that_never_ends_is_an_error_at_once(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    (source,) = iterate_sources([str(tmp_path)])
    with pytest.raises(ImageError, match="not a file"):
        read_source(source)


@pytest.fixture
def deep_folder(tmp_path, monkeypatch):
    """An image in more folders than Python's calls may lie in one another, and their number."""
    depth = sys.getrecursionlimit() + 50
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        os.mkdir("d")  # noqa: PTH102 (from where it stands: the whole path would be too long)
        os.chdir("d")
    Path("x.png").write_bytes(b"data")
    yield depth
    # pytest's own removal is recursive.
    Path("x.png").unlink()
    for _ in range(depth):
        os.chdir("..")
        os.rmdir("d")  # noqa: PTH106


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow shorter paths only")
def test_folders_may_lie_deeper_than_python_can_call(tmp_path, deep_folder):
    (source,) = iterate_sources([str(tmp_path)])
    assert source.name == (tmp_path / "/".join(["d"] * deep_folder) / "x.png").as_posix()


def test_zip_members_are_named_after_the_archive_and_readable(tmp_path):
    path = tmp_path / "photos.zip"
    data = encode(uniform_image(9))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/b.png", data)
        archive.writestr("a.png", b"other")
        archive.writestr("readme.txt", "text")
        archive.writestr("__MACOSX/inner/._b.png", "debris")
    sources = list(iterate_sources([str(path)]))
    assert [s.name for s in sources] == [
        f"{path.as_posix()}/a.png",
        f"{path.as_posix()}/inner/b.png",
    ]
    assert read_source(sources[1]) == data


def test_two_zip_entries_of_one_name_are_both_read(tmp_path):
    path = tmp_path / "twins.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.png", b"first")
        archive.writestr("a.png", b"second")
    sources = list(iterate_sources([str(path)]))
    assert [read_source(s) for s in sources] == [b"first", b"second"]
    assert [s.name for s in sources] == [f"{path.as_posix()}/a.png", f"{path.as_posix()}/a.png#2"]


def test_line_breaks_in_names_are_escaped():
    assert printable_name(Path("a\rb\nc.png")) == r"a\rb\nc.png"


def test_a_list_on_standard_input_is_read_line_by_line():
    assert names("-", listing=io.StringIO("a.png\n\nb c.png\r\n")) == ["a.png", "b c.png"]


def test_manifest_paths_are_relative_to_its_folder(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("sha256,path\n00,train/Fake/x.jpg\n", encoding="utf-8")
    assert names(manifest) == [(tmp_path / "train/Fake/x.jpg").as_posix()]


def test_a_csv_that_is_no_manifest_is_refused(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the columns path"):
        names(other)


def test_a_damaged_manifest_is_an_error_of_one_line(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text('path\n"' + "a" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.csv is damaged at line"):
        names(manifest)


def test_job_without_any_input_that_is_there_is_refused_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        expand_inputs([str(tmp_path / "missing"), str(tmp_path / "*.png")])
    with pytest.raises(FileNotFoundError, match=r"https://example\.org/a\.png\. Download it first"):
        expand_inputs(["https://example.org/a.png"])
    archive = tmp_path / "photos.tar.gz"
    archive.write_bytes(b"x")
    with pytest.raises(ValueError, match="Unpack it and name the folder"):
        expand_inputs([str(archive)])


def test_patterns_are_expanded_in_order_where_the_shell_has_not(image_folder):
    (image_folder / "[1].png").touch()
    inputs = [f"{image_folder}/a/*.png", f"{image_folder}/**/7.png", f"{image_folder}/[1].png"]
    found = [Path(text).name for text in expand_inputs(inputs)]
    assert found == ["0.png", "1.png", "2.png", "3.png", "4.png", "7.png", "[1].png"]


def test_address_keeps_its_name_and_is_not_fetched(image_folder):
    address = "https://example.org/a.png"
    assert expand_inputs([str(image_folder), address]) == [str(image_folder), address]
    (source,) = iterate_sources([address])
    assert source.name == address
    with pytest.raises(ImageError, match="download it first"):
        read_source(source)


def test_binary_data_in_place_of_a_list_of_paths_is_refused(monkeypatch):
    data = encode(uniform_image(1))
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(ValueError, match="found binary data"):
        expand_inputs(["-"])


def test_a_file_that_is_no_zip_is_refused_by_name(tmp_path):
    path = tmp_path / "photos.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"photos\.zip is not a readable zip"):
        names(path)


def test_bad_zip_entries_are_refused_one_by_one(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x" * 1000)
        archive.writestr("b.png", b"y" * 1000)
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"x" * 1000)] ^= 1
    # The flag "encrypted" of b.png in both of its headers.
    raw[raw.find(b"PK\x03\x04", 100) + 6] |= 1
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(raw))
    damaged, encrypted = iterate_sources([str(path)])
    with pytest.raises(ImageError, match="Bad CRC"):
        read_source(damaged)
    with pytest.raises(ImageError, match="encrypted"):
        read_source(encrypted)
    with pytest.raises(ImageError, match="limit is 10"):
        read_source(damaged, max_bytes=10)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_entry_larger_than_declared_costs_no_memory(tmp_path, method):
    path = tmp_path / "lying.zip"
    size = 50_000_000
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", bytes(size))
    raw = bytearray(path.read_bytes())
    directory = raw.rfind(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = (500).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    (source,) = iterate_sources([str(path)])
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            read_source(source, max_bytes=1000)
        assert tracemalloc.get_traced_memory()[1] < size / 10
    finally:
        tracemalloc.stop()


def test_an_archive_of_a_later_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "later.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"data")
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 6] = 90
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match=r"later\.zip is not a readable zip"):
        names(path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_are_escaped_and_still_read(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff.png"
    with open(raw, "wb") as file:  # noqa: PTH123
        file.write(b"data")
    (source,) = iterate_sources([str(tmp_path)])
    assert source.name.endswith(r"\udcff.png")
    assert read_source(source) == b"data"
    assert printable_name(Path("a/b")) == "a/b"
