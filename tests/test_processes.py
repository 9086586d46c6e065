"""Tests leave no process behind, even when they are terminated."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from joblib import Parallel, delayed

from tests.script_processes import ScriptProcess, end_scripts

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Start joblib's workers and wait; in a process of its own."""
    assert Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, 1)) == [1, 1]
    time.sleep(600)


def wait_for_workers(process):
    """The descendants of a process, as soon as two of joblib's workers are among them."""
    while True:
        assert process.is_running()
        children = process.children(recursive=True)
        if sum("LokyProcess" in " ".join(child.cmdline()) for child in children) == 2:
            return children
        time.sleep(0.1)


@pytest.mark.slow
def test_terminated_session_ends_joblibs_workers(tmp_path):
    file = tmp_path / "test_session.py"
    file.write_text("from tests.test_processes import main\n\ndef test_main():\n    main()\n")
    options = ("-q", "-p", "tests.conftest", "--rootdir", str(tmp_path), str(file))
    command = [sys.executable, "-m", "pytest", *options]
    session = psutil.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    started = wait_for_workers(session)
    session.terminate()
    session.wait()
    assert not psutil.wait_procs(started, timeout=60)[1]


@pytest.mark.slow
def test_workers_of_a_killed_script_end_with_the_tests(tmp_path):
    script = ScriptProcess("tests.test_processes", folder=tmp_path)
    started = wait_for_workers(psutil.Process(script.pid))
    script.kill()
    script.wait()
    assert all(process.is_running() for process in started)
    end_scripts()
    assert not psutil.wait_procs(started, timeout=60)[1]
