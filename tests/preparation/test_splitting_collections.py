"""The splitter keeps collections, sheets and prompts apart."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from real_vs_ai.core.config import MANIFEST_COLUMNS
from real_vs_ai.preparation.collections.collection_list import CollectionError
from real_vs_ai.preparation.layouts import FLAT, find_layout, find_sources
from real_vs_ai.preparation.manifest import read_manifest, write_manifest
from real_vs_ai.preparation.splitting import describe_splits, split_sources
from tests.preparation import material
from tests.preparation.collection_material import SIDE, add_commit, collect_all, commit
from tests.preparation.material import image_bytes, split_options
from tests.serving.trivial_model import encode


def test_collection_goes_whole_into_the_split_of_its_role(tmp_path, collected):
    layouts = find_sources([collected / name for name in ("photos", "fakes", "sheets")], kind=FLAT)
    split = tmp_path / "data" / "split"
    summaries = split_sources(layouts, output_dir=split, options=split_options())
    table = describe_splits(summaries)
    assert table.count("images") == 1
    assert all(name in table for name in ("photos", "fakes", "sheets"))
    material.merge([split / name for name in ("photos", "fakes", "sheets")], tmp_path / "data")
    rows = read_manifest(tmp_path / "data" / "manifest.csv")
    assert {(row.collection, row.split, row.label) for row in rows} == {
        ("photos", "test", "Real"),
        ("fakes", "train", "Fake"),
        ("sheets", "validation", "Fake"),
    }
    assert {row.generator for row in rows} == {"a camera", "GAN", "Diffusion", "SD"}
    assert {row.group for row in rows} == {"", "sheets/sheets/one", "sheets/sheets/two"}
    assert all(row.source == row.collection for row in rows)


def test_posters_are_left_out_of_training_and_stay_elsewhere(tmp_path, mirror):
    poster = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    poster[:16] = np.random.default_rng(0).integers(0, 256, (16, SIDE, 3), dtype=np.uint8)
    files = {"p.png": encode(poster), "q.jpg": image_bytes(1, size=(SIDE, SIDE))}
    posters = commit(mirror / "owner+posters", files)
    add_commit(tmp_path, "owner/posters", posters)
    change = {"repository": "owner/posters", "commit": posters, "pattern": ""}
    collect_all(tmp_path, mirror, change, names=["photos"])

    def kept(name):
        summary = material.split(tmp_path / "raw" / "photos", tmp_path / name)
        return len(summary.rows), [outcome.path for outcome in summary.outcomes]

    rows, told = kept("without")
    assert rows == 1
    assert told[0].startswith("real_images/p-")
    collect_all(tmp_path, mirror, change | {"role": "test"}, names=["photos"])
    assert kept("test") == (2, [])


def test_collection_of_which_nothing_is_left_is_split_and_merged(tmp_path, mirror, collected):
    poster = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    poster[:16] = np.random.default_rng(0).integers(0, 256, (16, SIDE, 3), dtype=np.uint8)
    alone = commit(mirror / "owner+posters", {"p.png": encode(poster)})
    (tmp_path / "more").mkdir()
    split_all = tmp_path / "data" / "split"
    shutil.copy(tmp_path / "commits.json", tmp_path / "more")
    add_commit(tmp_path / "more", "owner/posters", alone)
    change = {"repository": "owner/posters", "commit": alone, "pattern": "", "role": "train"}
    collect_all(tmp_path / "more", mirror, change, names=["photos"])
    (tmp_path / "more" / "raw" / "photos").rename(tmp_path / "more" / "raw" / "posters")
    assert len(material.split(tmp_path / "more" / "raw" / "posters", split_all).rows) == 0
    names = ("photos", "fakes", "sheets", "posters")
    for name in names[:3]:
        material.split(collected / name, split_all)
    material.merge([split_all / name for name in names], tmp_path / "data")
    rows = read_manifest(tmp_path / "data" / "manifest.csv")
    assert {row.collection for row in rows} == set(names[:3])


def test_merging_collections_of_one_split_names_missing_splits(tmp_path, collected):
    split = tmp_path / "data" / "split"
    for name in ("photos", "fakes"):
        material.split(collected / name, split)
    with pytest.raises(ValueError, match="found none for validation"):
        material.merge([split / "photos", split / "fakes"], tmp_path / "data")


@pytest.mark.parametrize("seed", range(4))
def test_tiles_of_one_sheet_share_a_split(tmp_path, mirror, seed):
    collect_all(tmp_path, mirror, names=["sheets"])
    choices = {"fractions": {"train": 0.5, "validation": 0.5}, "ignore_roles": True, "seed": seed}
    rows = material.split(tmp_path / "raw" / "sheets", tmp_path / "split", **choices).rows
    splits = {
        group: {r.split for r in rows if r.group == group} for group in {r.group for r in rows}
    }
    assert [len(names) for names in splits.values()] == [1, 1]
    assert {r.split for r in rows} == {"train", "validation"}


def test_manifest_without_collections_keeps_its_columns(tmp_path, collected):
    split = tmp_path / "split"
    material.split(collected / "photos", split)
    rows = read_manifest(split / "photos" / "manifest.csv")
    assert rows[0].collection == "photos"
    write_manifest(
        tmp_path / "plain.csv",
        [replace(row, collection="", generator="", group="") for row in rows],
    )
    header = (tmp_path / "plain.csv").read_text().splitlines()[0]
    assert tuple(header.split(",")) == MANIFEST_COLUMNS
    assert read_manifest(tmp_path / "plain.csv")[0].collection == ""


def test_damaged_notes_of_a_collection_are_refused(tmp_path, collected):
    (collected / "photos" / "images.csv").write_text("path\nx\n")
    with pytest.raises(CollectionError, match="Run DataCollector"):
        find_layout(collected / "photos")
