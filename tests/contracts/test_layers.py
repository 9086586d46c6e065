"""The package's imports follow the declared layers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "real_vs_ai"
# The parts that a part may import, apart from itself, from the ground up.
GROUND = {"core"}
FILES = GROUND | {"models"}
ALLOWED = {
    "core": set(),
    "models": GROUND,
    "perturbations": GROUND,
    "provenance": GROUND,
    "verdicts": FILES | {"provenance"},
    "dataset": FILES | {"perturbations"},
    "out_of_distribution": FILES | {"dataset", "perturbations", "verdicts"},
    "preparation": FILES | {"dataset", "perturbations", "provenance", "out_of_distribution"},
    "networks": FILES,
    "serving": FILES | {"provenance", "out_of_distribution", "verdicts"},
    "evaluation": FILES
    | {"dataset", "perturbations", "serving", "out_of_distribution", "verdicts"},
    "training": FILES
    | {"dataset", "perturbations", "networks", "evaluation", "out_of_distribution", "verdicts"},
    "ui": FILES | {"perturbations", "provenance", "serving", "out_of_distribution", "verdicts"},
    "service": FILES | {"provenance", "serving", "verdicts"},
    "": set(),
}
# `pipeline.py` starts the stages; the package offers what users call; a Keras model for an engine
# gives the features that its check needs.
EXCEPTIONS = {
    *(
        ("pipeline.py", part)
        for part in ("core", "models", "preparation", "training", "evaluation")
    ),
    # For type checkers alone.
    *(("__init__.py", p) for p in ("serving", "training", "evaluation", "verdicts")),
    ("models/keras_models.py", "out_of_distribution"),
}
FORBIDDEN = [
    (part, other) for part in ALLOWED for other in sorted(set(ALLOWED) - {part, ""} - ALLOWED[part])
]


def imported_modules(path: Path, root: Path) -> set[str]:
    """Modules of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = path.relative_to(root.parent).parts[: -node.level] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            found.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.split(".")[0] == root.name}


def crossings(path: Path, root: Path = PACKAGE) -> list[str]:
    """The parts that a file imports and its own part may not."""
    relative = path.relative_to(root)
    part = relative.parts[0] if len(relative.parts) > 1 else ""
    parts = {name.split(".")[1] for name in imported_modules(path, root) if "." in name}
    foreign = (parts & set(ALLOWED)) - {part} - ALLOWED[part]
    return sorted(other for other in foreign if (str(relative), other) not in EXCEPTIONS)


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_what_its_part_may(path):
    assert crossings(path) == []


@pytest.mark.parametrize(("part", "other"), FORBIDDEN)
def test_every_forbidden_import_is_found(tmp_path, part, other):
    root = tmp_path / PACKAGE.name
    module = root / part / "__init__.py"
    if not part:
        module = root / "module.py"
    module.parent.mkdir(parents=True)
    dots = ".." if part else "."
    for statement in (
        f"import {PACKAGE.name}.{other}.module",
        f"from {PACKAGE.name} import {other}",
        f"def f():\n    from {PACKAGE.name}.{other}.module import name",
        f"from {dots}{other} import name",
        f"from {dots} import {other}",
    ):
        module.write_text(statement, encoding="utf-8")
        assert crossings(module, root) == [other], statement


def test_every_folder_of_the_package_has_a_declared_layer():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ALLOWED) - {""}
