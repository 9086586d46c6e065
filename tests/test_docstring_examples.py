"""Examples in docstrings run, so that none goes stale."""

from __future__ import annotations

import ast
import doctest
import importlib
import textwrap
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "real_vs_ai"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def is_code(block: str) -> bool:
    """Whether a paragraph is Python that calls or assigns something."""
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(block.strip("\n")))))
    except SyntaxError:
        return False
    return any(isinstance(node, (ast.Call, ast.Assign)) for node in nodes)


def test_module_docstrings_have_no_examples_that_do_not_run():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if blocks := [block for block in text.split("\n\n") if is_code(block)]:
            found[path.name] = blocks
    assert not found


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_run(name):
    failed, tried = doctest.testmod(importlib.import_module(name), verbose=False)
    assert tried
    assert failed == 0
