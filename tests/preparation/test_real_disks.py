"""Stages report full disks and read-only folders, which these tests mount (Linux)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preparation.material import make_merged, make_train_test, snapshot

ROOT = Path(__file__).resolve().parents[2]
# A mount namespace of its own: the mounts vanish with the process, whatever becomes of it.
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
STAGES = {
    "DataUnZipper": (["{data}/archives/set.zip", "--output-dir", "{out}/raw"], "raw"),
    "DataSplitD2": (["{data}/raw/set", "--output-dir", "{out}/split"], "split"),
    "DataMerger": (["{data}/split/set", "--output-dir", "{out}"], "train"),
    "DataZipper": (["{data}/raw/set", "--output", "{out}/set.zip"], "set.zip"),
}


def can_mount() -> bool:
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    return in_namespace("mount -t tmpfs none /mnt && umount /mnt").returncode == 0


def in_namespace(script: str) -> subprocess.CompletedProcess:
    prefix = UNSHARE if os.geteuid() else ["unshare", "--mount"]
    return subprocess.run(
        [*prefix, "sh", "-c", script], capture_output=True, text=True, check=False
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="needs Linux and the right to mount"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What every stage needs, on a disk with room."""
    data = tmp_path_factory.mktemp("data")
    # Images of some size, so that a full disk comes before the end.
    make_train_test(data / "raw" / "set", train=12, test=4)
    for path in (data / "raw" / "set").rglob("*.jpg"):
        with path.open("ab") as file:
            file.write(os.urandom(20_000))
    make_merged(data / "merged", train=60)
    for script, arguments in (
        ("DataZipper", [f"{data}/raw/set", "--output", f"{data}/archives/set.zip"]),
        ("DataSplitD2", [f"{data}/raw/set", "--output-dir", f"{data}/split"]),
    ):
        run = subprocess.run(
            [sys.executable, ROOT / f"{script}.py", *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
    return data


def command(script: str, data: Path, out: Path) -> str:
    arguments = [argument.format(data=data, out=out) for argument in STAGES[script][0]]
    return f"'{sys.executable}' '{ROOT / script}.py' {' '.join(arguments)}"


MOUNTS = {
    "full": ("mount -t tmpfs -o size=128k none '{out}'", errno.ENOSPC),
    "read-only": ("mount -t tmpfs none '{out}' && mount -o remount,ro '{out}'", errno.EROFS),
}


@pytest.mark.parametrize("script", STAGES)
@pytest.mark.parametrize("disk", MOUNTS)
def test_full_or_read_only_disk_is_reported_and_has_no_partial_output(disk, script, data, tmp_path):
    before = snapshot(data)
    out, listing = tmp_path / "out", tmp_path / "left.txt"
    out.mkdir()
    mount, reason = MOUNTS[disk]
    result = in_namespace(
        f"{mount.format(out=out)} && cd '{tmp_path}' && {command(script, data, out)}; code=$?; "
        f"find '{out}' -type f ! -name '.*.lock' > '{listing}'; exit $code"
    )
    assert result.returncode == 1, result.stderr
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert os.strerror(reason) in message or (disk == "full" and "free disk space" in message)
    assert listing.read_text() == ""
    assert snapshot(data) == before
