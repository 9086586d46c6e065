"""Every error that the package raises for its users has one base class."""

from __future__ import annotations

import ast
from pathlib import Path

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


def test_modules_raise_the_projects_errors():
    """Raise `InputError`: after a plain ValueError a script shows a traceback."""
    plain = {"ValueError", "RuntimeError", "Exception"}
    calls = [(p, node.exc) for p in MODULES for node in nodes_of(p, ast.Raise)]
    assert [
        (p.name, c.lineno) for p, c in calls if getattr(getattr(c, "func", c), "id", "") in plain
    ] == []
