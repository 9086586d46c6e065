"""Packing takes every file but links and junk, and the same files give the same archive."""

from __future__ import annotations

import os
import time
import zipfile

import pytest

from real_vs_ai.preparation.archives import zip_folder
from tests.preparation.material import make_flat, snapshot, unpack


def pack(folder, output, **changes):
    values = {"entries": None, "overwrite": False}
    return zip_folder(folder, output=output, **{**values, **changes})


def test_packing_and_unpacking_gives_the_same_files(tmp_path):
    make_flat(tmp_path / "set", count=5)
    (tmp_path / "set" / "RealArt" / "ünïcode ♥.jpg").write_bytes(b"heart")
    pack(tmp_path / "set", tmp_path / "set.zip")
    unpack(tmp_path / "set.zip", tmp_path / "raw")
    assert snapshot(tmp_path / "raw" / "set") == snapshot(tmp_path / "set")


def test_tables_are_compressed_and_images_are_not(tmp_path):
    make_flat(tmp_path / "set", count=1)
    (tmp_path / "set" / "manifest.csv").write_text("path\n" * 1000)
    pack(tmp_path / "set", tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.getinfo("manifest.csv").compress_size < 200
        assert archive.getinfo("RealArt/0.jpg").compress_type == zipfile.ZIP_STORED


def test_links_hidden_files_and_debris_are_left_out(tmp_path):
    make_flat(tmp_path / "set", count=1)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "set" / "link.jpg").symlink_to(secret)
    (tmp_path / "set" / ".hidden").write_bytes(b"x")
    (tmp_path / "set" / "Thumbs.db").write_bytes(b"x")
    pack(tmp_path / "set", tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.namelist() == ["GeneratedArt/0.jpg", "RealArt/0.jpg"]


def test_archive_bytes_do_not_depend_on_the_time_zone(tmp_path, monkeypatch):
    make_flat(tmp_path / "set", count=3)
    for path in (tmp_path / "set").rglob("*.jpg"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    pack(tmp_path / "set", tmp_path / "one.zip")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    if hasattr(time, "tzset"):
        time.tzset()
    pack(tmp_path / "set", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_an_archive_inside_its_own_folder_does_not_swallow_itself(tmp_path):
    make_flat(tmp_path / "set", count=1)
    pack(tmp_path / "set", tmp_path / "set" / "all.zip")
    pack(tmp_path / "set", tmp_path / "set" / "all.zip", overwrite=True)
    with zipfile.ZipFile(tmp_path / "set" / "all.zip") as archive:
        assert len(archive.namelist()) == 2


def test_an_existing_archive_is_kept_unless_it_may_be_replaced(tmp_path):
    make_flat(tmp_path / "set", count=1)
    (tmp_path / "set.zip").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        pack(tmp_path / "set", tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == b"mine"


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(FileNotFoundError, match="found none"):
        pack(tmp_path / "set", tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()


def test_files_older_than_1980_are_packed(tmp_path):
    make_flat(tmp_path / "set", count=1)
    os.utime(tmp_path / "set" / "RealArt" / "0.jpg", (0, 0))
    pack(tmp_path / "set", tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.getinfo("RealArt/0.jpg").date_time[0] == 1980
