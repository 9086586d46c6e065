"""Who may import whom inside the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "real_vs_ai"
# The parts that a part may import besides itself and the shared modules above them.
ALLOWED = {
    "preparation": set(),
    "dataset": set(),
    "training": {"dataset", "evaluation"},
    "evaluation": {"dataset", "serving"},
    "serving": set(),
    "ui": {"serving"},
    "service": {"serving"},
    # The shared modules. Two of them name a part: see EXCEPTIONS.
    "": set(),
}
# `pipeline.py` starts the stages; the package offers the detector as its own name.
EXCEPTIONS = {("pipeline.py", "preparation"), ("__init__.py", "serving")}


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] == PACKAGE.name}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else ""


def crossings(path: Path) -> list[str]:
    """The imports of a file that its part may not make."""
    part = part_of(path)
    parts = {name.split(".")[1] for name in imported_modules(path) if "." in name}
    foreign = (parts & set(ALLOWED)) - {part} - ALLOWED[part]
    return sorted(other for other in foreign if (path.name, other) not in EXCEPTIONS)


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_what_its_part_may(path):
    assert crossings(path) == []


def test_every_folder_of_the_package_has_a_declared_layer():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ALLOWED) - {""}


@pytest.mark.parametrize("part", ["preparation", "training", "evaluation"])
def test_a_part_has_at_most_20_modules(part):
    assert len(list((PACKAGE / part).glob("*.py"))) <= 20
