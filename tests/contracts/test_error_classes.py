"""Every error that the package raises for its users has one base class."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "real_vs_ai"
MODULES = sorted(PACKAGE.rglob("*.py"))


def nodes_of(path: Path, kind: type) -> list:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def test_error_classes_share_one_base():
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in MODULES
        for node in nodes_of(path, ast.ClassDef)
        if node.name.endswith("Error")
    }
    known = {"RealVsAIError"}
    while more := {name for name in bases if name not in known and bases[name] & known}:
        known |= more
    assert set(bases) == known


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_raises_the_projects_errors(path):
    """Raise `InputError`: after a plain ValueError a script shows a traceback."""
    calls = [node.exc for node in nodes_of(path, ast.Raise) if isinstance(node.exc, ast.Call)]
    raised = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert raised.isdisjoint({"ValueError", "RuntimeError", "Exception"})
