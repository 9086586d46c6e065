"""Hostile and broken archives are refused, or entries skipped, with a line that says why.

Nothing is ever written outside the target, and a refused archive leaves no folder behind.
"""

from __future__ import annotations

import random
import shutil
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import DataUnZipper
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation import archives
from real_vs_ai.preparation.archives import extract_archives, safe_parts
from real_vs_ai.preparation.extraction import ArchiveError
from tests.preparation.hostile_archives import (
    GOOD,
    REFUSED,
    make_zip,
    patched,
    wrong_checksum,
    zip_bomb,
    zip_member,
)
from tests.preparation.material import image_bytes, snapshot, unpack


def extract(path, tmp_path, **changes):
    return unpack(path, tmp_path / "out" / "raw", **changes)[0]


# --- refused as a whole -------------------------------------------------------------------------

ESCAPES = [
    "../evil.jpg",
    "a/../../evil.jpg",
    "/etc/evil.jpg",
    "..\\evil.jpg",
    "a\\..\\..\\evil.jpg",
    "C:\\evil.jpg",
    "C:/evil.jpg",
    "c:evil.jpg",
    "\\\\server\\share\\evil.jpg",
    "//server/evil.jpg",
    "a/b/../../../evil.jpg",
    "..",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_entries_that_lead_outside_refuse_the_archive(tmp_path, name):
    make_zip(tmp_path / "bad.archive", [("good.jpg", GOOD), (name, b"evil")])
    with pytest.raises(ArchiveError, match=r"entry .*(outside|absolute|drive)"):
        extract(tmp_path / "bad.archive", tmp_path)
    assert_nothing_written(tmp_path)


def assert_nothing_written(tmp_path):
    raw = tmp_path / "out" / "raw"
    assert [p for p in raw.iterdir() if not p.name.endswith(".lock")] == []
    assert [p for p in (tmp_path / "out").iterdir() if p != raw] == []
    assert not list(tmp_path.parent.glob("evil*"))
    assert not list(tmp_path.glob("evil*"))


@pytest.mark.parametrize("kind", REFUSED)
def test_broken_and_hostile_archives_are_refused_and_leave_nothing(tmp_path, kind):
    content, reason = REFUSED[kind]
    (tmp_path / "bad.zip").write_bytes(content() if callable(content) else content)
    with pytest.raises(ArchiveError, match=f"bad.zip was refused: .*({reason})") as error:
        extract(tmp_path / "bad.zip", tmp_path)
    assert "\n" not in str(error.value)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_damage_found_by_a_worker_is_reported_alike(tmp_path, workers):
    make_zip(tmp_path / "bad.zip", [(f"{i}.jpg", image_bytes(i)) for i in range(1200)])
    patched(tmp_path / "bad.zip", image_bytes(1100)[-40:-10], b"y" * 30)
    with pytest.raises(ArchiveError, match=r"entry 1100\.jpg is damaged.*CRC"):
        extract(tmp_path / "bad.zip", tmp_path, pool=Pool(workers))
    assert_nothing_written(tmp_path)


def test_left_out_files_are_listed_before_a_later_archive_is_refused(tmp_path, capsys):
    make_zip(tmp_path / "one.zip", [("a.jpg", GOOD), ("inner.zip", b"zip")])
    (tmp_path / "two.zip").write_bytes(wrong_checksum())
    archives = [str(tmp_path / name) for name in ("one.zip", "two.zip")]
    assert DataUnZipper.main([*archives, f"--output-dir={tmp_path / 'raw'}", "--workers=1"]) == 1
    printed = capsys.readouterr()
    assert "Left out: inner.zip" in printed.out
    assert "two.zip was refused" in printed.err


def test_ratio_within_the_limit_is_unpacked(tmp_path, monkeypatch):
    (tmp_path / "zeros.zip").write_bytes(zip_bomb())
    monkeypatch.setattr(archives, "MAX_RATIO", 2000)
    extract(tmp_path / "zeros.zip", tmp_path)
    assert (tmp_path / "out" / "raw" / "zeros" / "zeros.jpg").stat().st_size == 100 * 2**20


@pytest.mark.parametrize("limit, found", [("MAX_BYTES", "GiB"), ("MAX_FILES", "5 files")])
def test_archive_past_the_limits_on_bytes_or_files_is_refused(tmp_path, monkeypatch, limit, found):
    monkeypatch.setattr(archives, limit, 3)
    make_zip(tmp_path / "a.zip", [(f"{i}.jpg", GOOD) for i in range(5)])
    with pytest.raises(ArchiveError, match=found):
        extract(tmp_path / "a.zip", tmp_path)
    assert_nothing_written(tmp_path)


def test_too_small_a_disk_is_reported_before_writing(tmp_path, monkeypatch):
    make_zip(tmp_path / "a.zip", [("a.jpg", GOOD)])
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="free disk space"):
        extract(tmp_path / "a.zip", tmp_path)
    assert_nothing_written(tmp_path)


# --- skipped, renamed, accepted -----------------------------------------------------------------

UNUSABLE = {
    "bell\x07.jpg": "control characters",
    "line\nbreak.jpg": "control characters",
    "right\u202eleft.jpg": "control characters",
    "x" * 250 + ".jpg": "too long a name",
    "/".join(["deep"] * 40) + "/a.jpg": "too long a path",
    "CON.jpg": "device on Windows",
    "dot./a.jpg": "Windows does not take",
    "stream.jpg:hidden": "Windows does not take",
    "what?.jpg": "Windows does not take",
    "inner.zip": "archive itself",
    "inner.tar.gz": "archive itself",
}


@pytest.mark.parametrize("name", UNUSABLE, ids=lambda name: ascii(name)[:30])
def test_unusable_entries_are_skipped_and_named(tmp_path, name):
    make_zip(tmp_path / "set.zip", [("a/good.jpg", GOOD), (name, b"data")])
    summary = extract(tmp_path / "set.zip", tmp_path)
    assert list(snapshot(tmp_path / "out" / "raw")) == ["set/a/good.jpg"]
    assert [reason for _, reason in summary.plan.skipped if UNUSABLE[name] in reason]
    assert str(summary).isprintable() or "\n" in str(summary)
    assert "\x07" not in str(summary)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666, 0o140777])
def test_links_and_devices_are_skipped(tmp_path, mode):
    odd = (zip_member("odd.jpg", mode=mode), b"/etc/passwd")
    make_zip(tmp_path / "set.zip", [("good.jpg", GOOD), odd])
    summary = extract(tmp_path / "set.zip", tmp_path)
    assert list(snapshot(tmp_path / "out" / "raw")) == ["set/good.jpg"]
    assert len(summary.plan.skipped) == 1


def test_a_link_cannot_be_written_through(tmp_path):
    link = (zip_member("a", mode=0o120777), str(tmp_path).encode())
    extract(make_zip(tmp_path / "set.zip", [link, ("a/evil.jpg", GOOD)]), tmp_path)
    assert not (tmp_path / "evil.jpg").exists()
    assert list(snapshot(tmp_path / "out" / "raw")) == ["set/a/evil.jpg"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a.jpg", "A.JPG"), ("a.jpg", "a.jpg"), ("é.jpg", "e\u0301.jpg"), ("x/a.jpg", "X/a.jpg")],
)
def test_names_equal_on_other_systems_are_both_kept(tmp_path, names):
    contents = [image_bytes(1), image_bytes(2)]
    make_zip(tmp_path / "set.zip", zip(names, contents, strict=True))
    summary = extract(tmp_path / "set.zip", tmp_path)
    files = list((tmp_path / "out" / "raw" / "set").rglob("*.*"))
    assert sorted(path.read_bytes() for path in files) == sorted(contents)
    assert len(summary.plan.renamed) == 1


def test_debris_of_macos_and_windows_is_left_out_and_counted(tmp_path):
    names = ["__MACOSX/._a.jpg", ".DS_Store", "x/.DS_Store", "x/Thumbs.db", "x/._b.jpg"]
    make_zip(tmp_path / "set.zip", [("x/a.jpg", GOOD), *((name, b"d") for name in names)])
    summary = extract(tmp_path / "set.zip", tmp_path)
    assert list(snapshot(tmp_path / "out" / "raw")) == ["set/x/a.jpg"]
    assert summary.plan.debris == len(names)


def test_zip_is_recognised_by_content_and_names_its_source(tmp_path):
    summary = extract(make_zip(tmp_path / "my set.TAR", [("x/a.jpg", GOOD)]), tmp_path)
    assert list(snapshot(summary.output_dir.parent)) == ["my-set/x/a.jpg"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_zips_are_unpacked(tmp_path, compression):
    entries = {"a.jpg": GOOD * 100, "large.jpg": random.Random(1).randbytes(2**21), "no": b""}
    make_zip(tmp_path / "set.zip", entries.items(), compression=compression)
    extract(tmp_path / "set.zip", tmp_path)
    folder = tmp_path / "out" / "raw" / "set"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries


def test_a_backslash_is_a_separator_as_windows_tools_write_it(tmp_path):
    make_zip(tmp_path / "set.zip", [("train\\FAKE\\a.jpg", GOOD)])
    extract(tmp_path / "set.zip", tmp_path)
    assert list(snapshot(tmp_path / "out" / "raw")) == ["set/train/FAKE/a.jpg"]


def test_zip64_entries_are_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "set.zip", "w") as archive,
        archive.open("a.jpg", "w", force_zip64=True) as entry,
    ):
        entry.write(GOOD)
    extract(tmp_path / "set.zip", tmp_path)
    assert (tmp_path / "out" / "raw" / "set" / "a.jpg").read_bytes() == GOOD


@pytest.mark.slow
def test_more_than_65535_entries_are_unpacked(tmp_path):
    make_zip(tmp_path / "set.zip", [(f"{i % 100}/{i}.jpg", b"%d" % i) for i in range(66_000)])
    extract(tmp_path / "set.zip", tmp_path, pool=Pool(2))
    assert sum(1 for _ in (tmp_path / "out" / "raw" / "set").glob("*/*.jpg")) == 66_000
    assert (tmp_path / "out" / "raw" / "set" / "99" / "65999.jpg").read_bytes() == b"65999"


def test_existing_sources_are_refused_passed_over_or_replaced(tmp_path):
    one = make_zip(tmp_path / "one.zip", [("a.jpg", b"1")])
    two = make_zip(tmp_path / "two.zip", [("a.jpg", b"2")])
    extract(one, tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        extract(one, tmp_path)
    raw = tmp_path / "out" / "raw"
    done = list(extract_archives([one, two], output_dir=raw, overwrite=False, pool=Pool(1)))
    assert [summary.output_dir.name for summary in done] == ["two"]
    make_zip(tmp_path / "one.zip", [("b.jpg", b"3")])
    extract(one, tmp_path, overwrite=True)
    assert [p.name for p in (tmp_path / "out" / "raw" / "one").iterdir()] == ["b.jpg"]


def test_a_refused_replacement_keeps_the_old_source(tmp_path):
    extract(make_zip(tmp_path / "set.zip", [("a.jpg", GOOD)]), tmp_path)
    before = snapshot(tmp_path / "out" / "raw")
    (tmp_path / "set.zip").write_bytes(wrong_checksum())
    with pytest.raises(ArchiveError):
        extract(tmp_path / "set.zip", tmp_path, overwrite=True)
    assert snapshot(tmp_path / "out" / "raw") == before


@given(st.text(alphabet="ab./\\:C\x00~ ", max_size=12))
def test_no_entry_name_leads_outside(name):
    try:
        parts = safe_parts(name)
    except ArchiveError:
        return
    assert ".." not in parts
    assert not any("/" in part or "\\" in part for part in parts)
    assert not (parts and parts[0][1:2] == ":" and parts[0][0].isalpha())
