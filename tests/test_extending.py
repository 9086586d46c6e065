"""The worked examples of docs/extending.md work on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE))
EDIT = re.compile(r"In `([^`]+)`:\n\n```diff\n (.*?\n)((?:\+.*?\n)+)```")
CHECK = re.compile(r"Check:\n\n```python\n(.*?)```", re.DOTALL)
EXAMPLES = [title for title, text in SECTIONS.items() if CHECK.search(text)]
# How many files an addition may touch.
MOST_FILES = {
    "A perturbation": 1,
    "An image format": 1,
    "A backbone": 1,
    "A column of the scores table": 2,
}


def apply_edits(text: str, *, package: Path) -> set[str]:
    """Insert the lines of a section; the names of the changed files."""
    edits = EDIT.findall(text)
    for name, anchor, added in edits:
        path = package.parent / name
        source = path.read_text(encoding="utf-8")
        assert source.count(anchor) == 1
        lines = "".join(line[1:] for line in added.splitlines(keepends=True))
        path.write_text(source.replace(anchor, anchor + lines), encoding="utf-8")
    return {name for name, _, _ in edits}


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_of_the_guide_works(title, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "examples")
    package = shutil.copytree(ROOT / "real_vs_ai", tmp_path / "real_vs_ai", ignore=ignored)
    text = SECTIONS[title]
    changed = apply_edits(text, package=package)
    assert 1 <= len(changed) <= MOST_FILES[title]
    done = subprocess.run(
        [sys.executable, "-c", CHECK.search(text)[1]],
        cwd=tmp_path,
        # Keras starts sooner on OpenVINO, which is enough to build a network.
        env={**os.environ, "PYTHONPATH": str(tmp_path), "KERAS_BACKEND": "openvino"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_guide_has_an_example_for_each_limit():
    assert set(EXAMPLES) == set(MOST_FILES)
