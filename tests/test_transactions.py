"""Files change all together or not at all, at whatever instant the writer is killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from real_vs_ai.core.transactions import finish_replacing, replace_together

ROOT = Path(__file__).resolve().parents[1]
OLD = {"model.h5": "old", "metrics.json": "old", "figures/a.png": "old", "figures/gone.png": "old"}
NEW = {"model.h5": "new", "metrics.json": "new", "figures/a.png": "new", "figures/b.png": "new"}
KEPT = {"config.json": "mine"}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def replace(folder):
    with replace_together(folder) as new:
        write(new.of(folder, whole=("figures",)), NEW)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "run", OLD | KEPT)
    return tmp_path / "run"


def test_new_files_replace_the_old_ones_and_others_stay(folder):
    replace(folder)
    assert read(folder) == NEW | KEPT
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_failure_while_writing_leaves_everything_as_it_was(folder):
    with pytest.raises(OSError, match="No space"), replace_together(folder) as new:
        write(new.of(folder), {"model.h5": "half"})
        raise OSError(28, "No space left on device")
    assert read(folder) == OLD | KEPT


# Kills the process at the nth call that changes the disk.
KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from real_vs_ai.core.transactions import replace_together
calls = 0
def count(event, *_):
    global calls
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "open"):
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
folder = Path(sys.argv[2])
with replace_together(folder) as new:
    made = new.of(folder, whole=("figures",))
    (made / "figures").mkdir()
    for name, text in json.loads(sys.argv[4]).items():
        (made / name).write_text(text)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signal kills a process here")
def test_killed_at_any_instant_all_files_are_old_or_all_are_new(tmp_path):
    seen, at, finished = [], 0, False
    while not finished:
        at += 1
        folder = tmp_path / str(at)
        write(folder, OLD | KEPT)
        arguments = [str(ROOT), str(folder), str(at), json.dumps(NEW)]
        ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        finished = ended.returncode == 0
        finish_replacing(folder)
        found = read(folder)
        found = {name: text for name, text in found.items() if not name.startswith(".")}
        assert found in (OLD | KEPT, NEW | KEPT), at
        seen.append(found["model.h5"])
        # Nothing of the killed one is in the way of the next.
        replace(folder)
        assert read(folder) == NEW | KEPT
    assert seen == sorted(seen, reverse=True)
    assert seen.count("old") > 5 and seen.count("new") > 5


def test_files_of_two_folders_change_together_and_a_moved_folder_is_finished(tmp_path, monkeypatch):
    home, report = tmp_path / "models", tmp_path / "models" / "report"
    write(home, {"model.h5": "old"})

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("real_vs_ai.core.transactions._move", stop)
        with pytest.raises(KeyboardInterrupt), replace_together(home) as new:
            write(new.of(home), {"model.h5": "new"})
            write(new.of(report), {"metrics.json": "new"})
    moved = home.rename(tmp_path / "elsewhere")
    finish_replacing(moved)
    assert read(moved) == {"model.h5": "new", "report/metrics.json": "new"}


def test_file_on_another_disk_is_copied(folder, monkeypatch):
    replaced = Path.replace

    def refuse(path, target):
        if Path(target).name == "model.h5":
            raise OSError(18, "Invalid cross-device link")
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    replace(folder)
    assert read(folder) == NEW | KEPT
