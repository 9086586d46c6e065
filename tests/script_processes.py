"""Run scripts in processes that can be killed, without importing everything for each.

    process = ScriptProcess("DataMerger", "--workers", "2", folder=tmp_path)
    process.kill()

Each is forked from one process that has imported TensorFlow, scikit-learn and matplotlib and done
nothing else: the imports take longer than what the tests let the scripts do. Workers of a killed
script outlive it, as they would for a user, and end with the tests: see `end_scripts`.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PATHS = [str(ROOT), str(ROOT / "tests" / "training")]
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_IMPORTED = ("sklearn.metrics", "matplotlib.figure", "small_runs", "real_vs_ai.training.trainer")


_started: list[int] = []


class ScriptProcess:
    """`main` of a script or of another module, in a process of its own.

    Args:
        script: The module's name; the tests' `small_runs` is ModelTraining.py on a tiny network.
        arguments: The command line.
        folder: Where it runs; what it prints goes into `output.txt` there.
        environment: Variables of the environment in addition to the tests' own.
    """

    def __init__(self, script: str, *arguments: str, folder: Path, **environment: str) -> None:
        _start_server()
        self._output = folder / "output.txt"
        details = (script, arguments, folder, environment)
        self._process = _CONTEXT.Process(target=_run_script, args=details)
        self._process.start()
        self.pid = self._process.pid
        _started.append(self.pid)
        self.kill = self._process.kill

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> tuple[int, str]:
        """The exit status (negative for a signal) and the output, when it has ended."""
        self._process.join(900)
        assert self._process.exitcode is not None, "it did not end"
        return self._process.exitcode, self._output.read_text() if self._output.exists() else ""


def end_scripts() -> None:
    """End the scripts and whatever workers they left: joblib's would wait for work for minutes."""
    while _started:
        # A group has no members left where a script ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(_started.pop(), signal.SIGKILL)


def _start_server() -> None:
    """Start the process that the others are forked from, unless it runs."""
    if sys.platform != "linux":
        return
    _CONTEXT.set_forkserver_preload(list(_IMPORTED))
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*_PATHS, path]))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = path


def _run_script(
    script: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> None:
    # A group of its own, by which its workers are found when it is gone.
    os.setpgid(0, 0)
    os.environ.update(environment)
    os.chdir(folder)
    with (folder / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.path[:0] = _PATHS
    sys.argv = [f"{script}.py", *arguments]
    try:
        sys.exit(importlib.import_module(script).main())
    finally:
        # An interpreter ends joblib's idle workers first; multiprocessing would wait for them.
        threading._shutdown()
