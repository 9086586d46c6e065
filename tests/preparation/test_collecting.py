"""Collections come out of git whole, cut, checked and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import DataCollector
from real_vs_ai.preparation.collections import collecting, sources
from real_vs_ai.preparation.collections.collecting import collect
from real_vs_ai.preparation.collections.collection_list import (
    ALREADY_THERE,
    OTHER_SETTINGS,
    UPDATED,
    CollectionError,
    read_collected,
    read_collections,
    role_of,
)
from tests.preparation.collection_material import (
    SIDE,
    add_commit,
    collect_all,
    commit,
    git,
    let_fetch_parts,
    options,
    outcomes,
    write_list,
    write_rows,
)
from tests.preparation.material import image_bytes, run_disturbed, snapshot, split


def test_pictures_keep_their_bytes_and_the_rest_is_named(tmp_path, mirror):
    summary = collect_all(tmp_path, mirror)
    assert not summary.failed
    fakes = tmp_path / "raw" / "fakes"
    kept = {path.read_bytes() for path in (fakes / "fake_images").iterdir()}
    source = mirror / "owner" / "fakes" / "img"
    assert kept == {
        (source / name).read_bytes() for name in ("a0.png", "a1.png", "a2.png", "really_jpeg.png")
    }
    told = outcomes(fakes)
    assert set(told) == {
        "img/a0_input.png",
        "img/again.png",
        "img/broken.png",
        "img/small.png",
        "img/blank.png",
    }
    assert "excluded" in told["img/a0_input.png"]
    assert "img/a1.png" in told["img/again.png"]
    assert "too small" in told["img/small.png"]
    assert "blank" in told["img/blank.png"]
    names = sorted(path.name for path in (fakes / "fake_images").iterdir())
    assert next(name for name in names if name.startswith("really_jpeg")).endswith(".jpg")
    images = read_collected(fakes).images.values()
    assert sorted(image.generator for image in images) == ["Diffusion", "GAN", "GAN", "GAN"]
    assert "CC0" in str(summary)
    told = str(summary)
    assert "Fake: 12 images of 2 collections." in told
    assert "Real: 4 images of 1 collection." in told


def test_grids_are_cut_and_keep_their_format_and_sheet(tmp_path, mirror):
    collect_all(tmp_path, mirror, names=["sheets"])
    folder = tmp_path / "raw" / "sheets"
    tiles = sorted((folder / "fake_images").iterdir())
    assert [path.suffix for path in tiles] == [".jpg"] * 4 + [".webp"] * 4
    with Image.open(mirror / "owner" / "fakes" / "sheets" / "one.jpg") as sheet:
        pixels, tables = np.asarray(sheet.convert("RGB")), sheet.quantization
    for path, (row, column) in zip(tiles[:4], [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        with Image.open(path) as tile:
            assert tile.size == (SIDE, SIDE)
            assert tile.quantization == tables
            top, left = SIDE * row, SIDE * column
            cut = pixels[top : top + SIDE, left : left + SIDE]
            # Seams on block borders and the same tables: a second encoding is nearly free.
            assert np.abs(np.asarray(tile.convert("RGB")).astype(int) - cut).mean() < 0.5
    images = read_collected(folder).images.values()
    assert (
        sorted(image.group for image in images)
        == ["sheets/sheets/one"] * 4 + ["sheets/sheets/two"] * 4
    )
    with Image.open(mirror / "owner" / "fakes" / "sheets" / "two.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    path = next((folder / "fake_images").glob("two*-r1c0.webp"))
    with Image.open(path) as tile:
        assert (np.asarray(tile.convert("RGB")) == pixels[SIDE:, :SIDE]).all()


def test_limit_takes_the_same_images_every_time(tmp_path, mirror):
    limit = ({}, {}, {"limit": "3"})
    collect_all(tmp_path, mirror, *limit, names=["sheets"])
    first = snapshot(tmp_path / "raw")
    collect_all(tmp_path, mirror, *limit, names=["sheets"], overwrite=True, workers=2)
    assert snapshot(tmp_path / "raw") == first
    assert len(list((tmp_path / "raw" / "sheets" / "fake_images").iterdir())) == 3


def test_missing_commit_fails_alone_and_says_what_to_do(tmp_path, mirror, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_list(tmp_path, {"commit": "0" * 40})
    arguments = ["--list", str(path), "--from", str(mirror), "--min-side", "16"]
    assert DataCollector.main([*arguments, "--workers", "1"]) == 1
    output = capsys.readouterr().out
    assert "photos: Expected commit 0000" in output
    assert "1 collection could not be collected." in output
    raw = tmp_path / "data" / "raw"
    assert sorted(p.name for p in raw.iterdir() if not p.name.startswith(".")) == [
        "fakes",
        "sheets",
    ]


def test_unknown_repository_and_empty_match_fail_with_one_line(tmp_path, mirror):
    changes = ({"repository": "owner/none", "commit": "1" * 40}, {"pattern": "nothing"}, {})
    add_commit(tmp_path, "owner/none", "1" * 40)
    statuses = [result.status for result in collect_all(tmp_path, mirror, *changes).results]
    assert "Expected a git directory of owner/none" in statuses[0]
    assert "found none of" in statuses[1]
    assert statuses[2] == "collected"


def test_file_missing_from_the_git_directory_is_named(tmp_path, mirror):
    repository = mirror / "owner+photos" / "repo"
    blob = git("rev-parse", "HEAD:photos/p1.jpg", folder=repository)
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    result = collect_all(tmp_path, mirror, names=["photos"]).results[0]
    assert result.counts == (0, 3, 1)
    assert "not in the git directory" in outcomes(tmp_path / "raw" / "photos")["photos/p1.jpg"]


def test_damaged_git_directory_fails_the_collection_in_one_line(tmp_path, mirror):
    repository = mirror / "owner+photos" / "repo"
    blob = git("rev-parse", "HEAD:photos/p1.jpg", folder=repository)
    path = repository / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-100])
    result = collect_all(tmp_path, mirror, names=["photos"]).results[0]
    assert f"Expected file {blob} in" in result.status
    assert "\n" not in result.status


def test_file_too_large_to_read_is_left_out(tmp_path, mirror, monkeypatch):
    repository = mirror / "owner+photos" / "repo"
    *others, largest = sorted(repository.rglob("*.jpg"), key=lambda path: path.stat().st_size)
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", largest.stat().st_size - 1)
    result = collect_all(tmp_path, mirror, names=["photos"]).results[0]
    assert result.counts[1] == len(others) > 0
    assert list(outcomes(tmp_path / "raw" / "photos")) == [f"photos/{largest.name}"]


def test_second_run_passes_over_what_is_there(tmp_path, mirror):
    collect_all(tmp_path, mirror)
    before = snapshot(tmp_path / "raw")
    again = collect_all(tmp_path, None)
    assert {result.status for result in again.results} == {ALREADY_THERE}
    changed = collect_all(tmp_path, None, {"exclude": "p1"})
    assert changed.results[0].status == OTHER_SETTINGS
    assert "add --overwrite" in str(changed)
    assert snapshot(tmp_path / "raw") == before


def test_each_collection_is_read_once_however_many_are_collected(tmp_path, mirror, monkeypatch):
    read = []

    def counting(folder):
        read.append(folder.name)
        return read_collected(folder)

    monkeypatch.setattr(collecting, "read_collected", counting)
    commits = json.loads((tmp_path / "commits.json").read_text())
    row = {"repository": "owner/fakes", "commit": commits["owner/fakes"], "pattern": "^img/"}
    row |= {"label": "Fake", "role": "train", "generator_or_source": "", "licence": ""}
    names = [f"again{i}" for i in range(6)]
    rows = [row | {"collection": name} for name in names]
    collections = read_collections(write_rows(tmp_path / "many.csv", rows), names=[])
    assert not collect(collections, output_dir=tmp_path / "raw", options=options(mirror)).failed
    assert sorted(read) == names[:-1]


def test_row_without_a_role_takes_that_of_its_owner(tmp_path, mirror):
    collections = read_collections(write_list(tmp_path, {"role": ""}), names=["photos"])
    assert [collection.role for collection in collections] == [role_of("owner/photos")]


def test_odd_file_names_are_collected_and_stay_apart(tmp_path, mirror):
    names = ["photos/" + "\u6f22" * 70 + ".jpg", "photos/a\tb\n.jpg", "photos/sub/p.jpg"]
    files = {name: image_bytes(i, size=(SIDE, SIDE)) for i, name in enumerate(names)}
    files["photos/p.JPG"] = image_bytes(9, size=(SIDE, SIDE))
    odd = commit(mirror / "owner+odd", files)
    add_commit(tmp_path, "owner/odd", odd)
    change = {"repository": "owner/odd", "commit": odd}
    result = collect_all(tmp_path, mirror, change, names=["photos"]).results[0]
    assert result.counts == (0, 4, 0)
    rows = split(tmp_path / "raw" / "photos", tmp_path / "split").rows
    assert len({row.origin for row in rows}) == 4


def test_changed_role_needs_no_second_look_at_the_pictures(tmp_path, mirror):
    collect_all(tmp_path, mirror)
    changed = collect_all(tmp_path, None, {"role": "test"})
    assert changed.results[0].status == UPDATED
    assert read_collected(tmp_path / "raw" / "photos").role == "test"


def test_other_data_set_of_that_name_is_not_touched(tmp_path, mirror):
    (tmp_path / "raw" / "photos" / "REAL").mkdir(parents=True)
    with pytest.raises(ValueError, match="Move that folder elsewhere"):
        collect_all(tmp_path, mirror)


@pytest.mark.parametrize("at", [5, 25, 60])
def test_killed_collection_leaves_nothing_or_the_whole(tmp_path, mirror, at):
    def work():
        collect_all(tmp_path, mirror)

    run_disturbed(work, at=at, how="kill")
    for folder in (tmp_path / "raw").glob("[!.]*"):
        assert (folder / "collection.json").is_file()
    collect_all(tmp_path, mirror)
    survived = snapshot(tmp_path / "raw")
    undisturbed = tmp_path / "undisturbed"
    collect(
        read_collections(tmp_path / "list.csv", names=[]),
        output_dir=undisturbed,
        options=options(mirror),
    )
    assert survived == snapshot(undisturbed)


def test_only_wanted_files_are_fetched_and_kept_for_later(tmp_path, mirror):
    for repository in (mirror / "owner+photos" / "repo", mirror / "owner" / "fakes"):
        let_fetch_parts(repository)
    server = tmp_path / "server" / "owner"
    server.mkdir(parents=True)
    (mirror / "owner+photos" / "repo").rename(server / "photos")
    (mirror / "owner" / "fakes").rename(server / "fakes")
    changes = {
        "server": (tmp_path / "server").as_uri(),
        "repositories_dir": tmp_path / "repositories",
    }
    summary = collect_all(tmp_path, None, **changes)
    assert [result.status for result in summary.results] == ["collected"] * 3
    fetched = tmp_path / "repositories" / "owner+fakes.git"
    present = git("cat-file", "--batch-all-objects", "--batch-check", folder=fetched)
    readme = git("rev-parse", "HEAD:README.md", folder=server / "fakes")
    assert readme not in present
    # A second run needs no server: what was fetched is there.
    again = collect_all(tmp_path, tmp_path / "repositories", overwrite=True)
    assert not again.failed


def test_unreachable_server_fails_with_its_reason(tmp_path, mirror):
    changes = {
        "server": (tmp_path / "nowhere").as_uri(),
        "repositories_dir": tmp_path / "repositories",
    }
    result = collect_all(tmp_path, None, names=["photos"], **changes).results[0]
    assert result.failed
    assert "Expected git fetch to succeed" in result.status
    assert not (tmp_path / "raw" / "photos").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"collection": "../outside"},
        {"repository": "--upload-pack=evil/x"},
        {"repository": "owner/../../x"},
        {"commit": "main"},
        {"label": "Maybe"},
        {"role": "holiday"},
        {"pattern": "("},
        {"tiles": "0x2"},
        {"limit": "-1"},
        {"group": "no brackets"},
        {"generators": "no equals sign"},
        {"collection": "FAKES"},
    ],
)
def test_wrong_row_is_refused_with_its_place(tmp_path, mirror, change):
    path = write_list(tmp_path, change)
    with pytest.raises(CollectionError, match=r"^Expected .*found"):
        read_collections(path, names=[])


def test_list_without_a_column_or_the_named_collection_is_refused(tmp_path, mirror):
    path = write_list(tmp_path)
    with pytest.raises(CollectionError, match="found nowhere"):
        read_collections(path, names=["nowhere"])
    path.write_text("collection,repository\n")
    with pytest.raises(ValueError, match="found no commit"):
        read_collections(path, names=[])


def test_project_list_is_valid_and_every_split_has_both_classes():
    path = Path(__file__).resolve().parents[2] / "data" / "collections.csv"
    collections = read_collections(path, names=[])
    for role in ("train", "validation", "test"):
        assert {c.label for c in collections if c.role == role} >= {"Fake", "Real"}
    assert all(collection.licence for collection in collections)
