"""No two modules of the package import each other, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "real_vs_ai"


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(root: Path) -> dict[str, set[str]]:
    """The modules that each module imports, inside functions too; not for type checkers alone."""
    paths = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    graph = {}
    for name, path in paths.items():
        found = set()
        for node in _executed(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = _source_of(node, name, is_package=path.name == "__init__.py")
                submodules = {f"{source}.{alias.name}" for alias in node.names}
                found |= submodules & set(paths)
                # What is not a module is a name in the package or module itself.
                if submodules - set(paths):
                    found.add(source)
        graph[name] = (found & set(paths)) - {name}
    return graph


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node below this one but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _executed(node)


def _source_of(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *filter(None, [node.module])])


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, the last the first; [] if there are none."""
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> list[str]:
        if name in above:
            return above[above.index(name) :]
        if name not in done:
            for other in sorted(graph[name]):
                if cycle := visit(other, [*above, name]):
                    return cycle
            done.add(name)
        return []

    return next((cycle for name in graph if (cycle := visit(name, []))), [])


def test_no_modules_import_each_other_in_a_circle():
    assert find_cycle(import_graph(PACKAGE)) == []
