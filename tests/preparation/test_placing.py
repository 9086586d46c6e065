"""Names never collide, links are not followed, and placing overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_vs_ai.preparation import manifest
from real_vs_ai.preparation.manifest import (
    describe_placement,
    fold_name,
    place_files,
    safe_name,
    source_name,
    unique_names,
)


@given(st.lists(st.sampled_from(["a.jpg", "A.jpg", "a-2.jpg", "é.jpg", "e\u0301.jpg", "b"])))
def test_unique_names_never_collide_on_any_file_system(names):
    result = unique_names(names)
    assert len({fold_name(name) for name in result}) == len(names)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.jpg", "A.jpg", "a.jpg"], ["a.jpg", "A-2.jpg", "a-3.jpg"]),
        # A number never takes the name of another file.
        (["a.jpg", "A.jpg", "a-2.jpg"], ["a.jpg", "A-3.jpg", "a-2.jpg"]),
        (["s/a.jpg", "s/a.jpg", "s/a-2.jpg"], ["s/a.jpg", "s/a-3.jpg", "s/a-2.jpg"]),
    ],
)
def test_first_of_colliding_names_keeps_its_own(names, expected):
    assert unique_names(names) == expected


@given(st.text(min_size=1, max_size=400))
def test_safe_name_fits_every_file_system(name):
    result = safe_name(name)
    assert 0 < len(result.encode()) <= manifest.MAX_NAME_BYTES
    assert not set(result) & set('<>:"/\\|?*\0')


def test_two_long_names_stay_two():
    first, second = safe_name("x" * 300 + "1.jpg"), safe_name("x" * 300 + "2.jpg")
    assert first != second
    assert first.endswith(".jpg")


def test_source_name_has_no_separator_of_ours():
    assert source_name(Path("my set__v2 (1)")) == "my-set-v2-1"
    assert source_name(Path("...")) == "source"


def test_placing_links_where_the_file_system_allows(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    placement = place_files([(tmp_path / "a", tmp_path / "b")])
    assert describe_placement(placement) == "1 file hard-linked (no extra space)"
    assert (tmp_path / "a").samefile(tmp_path / "b")


def test_placing_copies_where_links_are_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(manifest.os, "link", refuse)
    (tmp_path / "a").write_bytes(b"1")
    placement = place_files([(tmp_path / "a", tmp_path / "b")])
    assert describe_placement(placement) == "1 file copied"
    assert (tmp_path / "b").read_bytes() == b"1"


@pytest.mark.parametrize("links", [True, False])
def test_placing_never_overwrites(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(manifest, "_link", lambda existing, new: False)
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        place_files([(tmp_path / "a", tmp_path / "b")])
    assert (tmp_path / "b").read_bytes() == b"old"
