"""Deletion stays inside the allowed folders, follows no link and leaves nothing half gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from real_vs_ai.preparation import staging
from real_vs_ai.preparation.staging import delete, plan_deletion
from tests.preparation.material import snapshot, write_images


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data" / "raw" / "set", 3, seed=1)
    write_images(tmp_path / "outside", 3, seed=2)
    (tmp_path / "data" / "README.md").write_text("about")
    return tmp_path


def remove(*paths):
    delete(plan_deletion([Path(path) for path in paths], allowed=[Path("data"), Path("models")]))


@pytest.mark.parametrize(
    "path",
    [
        "outside",
        ".",
        "data",
        "data/..",
        "data/../outside",
        "/",
        "data/raw/../../outside",
        "data/README.md",
        "models",
    ],
)
def test_nothing_outside_the_data_folders_can_be_deleted(workplace, path):
    before = snapshot(workplace)
    with pytest.raises((ValueError, FileNotFoundError)):
        remove(path)
    assert snapshot(workplace) == before


def test_a_link_is_deleted_and_what_it_points_to_stays(workplace):
    (workplace / "data" / "link").symlink_to(workplace / "outside", target_is_directory=True)
    (workplace / "data" / "raw" / "inner").symlink_to(workplace / "outside")
    remove("data/link", "data/raw")
    assert not (workplace / "data" / "link").is_symlink()
    assert not (workplace / "data" / "raw").exists()
    assert len(list((workplace / "outside").iterdir())) == 3


def test_a_path_through_a_link_leads_outside_and_is_refused(workplace):
    (workplace / "data" / "link").symlink_to(workplace / "outside", target_is_directory=True)
    with pytest.raises(ValueError, match="inside data or models"):
        remove("data/link/0.jpg")
    assert len(list((workplace / "outside").iterdir())) == 3


def test_files_folders_and_nested_paths_go_together(workplace):
    plan = plan_deletion(
        [Path("data/raw"), Path("data/raw/set"), Path("data/raw/set/0.jpg")], allowed=[Path("data")]
    )
    assert [target.path for target in plan.targets] == [Path("data/raw")]
    assert plan.files == 3
    delete(plan)
    assert snapshot(workplace / "data") == {"README.md": snapshot(workplace / "data")["README.md"]}


def test_hard_linked_copies_elsewhere_survive(workplace):
    kept = workplace / "data" / "kept.jpg"
    kept.hardlink_to(workplace / "data" / "raw" / "set" / "0.jpg")
    remove("data/raw")
    assert kept.stat().st_size > 0


def test_next_run_finishes_a_killed_deletion(workplace, monkeypatch):
    def die(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(staging.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        remove("data/raw")
    monkeypatch.setattr(staging.shutil, "rmtree", shutil.rmtree)
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    # No half of the folder is left under its name.
    assert not Path("data/raw").exists()
    remove("data/raw")
    assert not [path for path in Path("data").iterdir() if "raw" in path.name]
