"""What users import from the package is there, at no cost until it is used."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import real_vs_ai

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", real_vs_ai.__all__)
def test_public_name_is_there_and_documented(name):
    found = getattr(real_vs_ai, name)
    assert name in dir(real_vs_ai)
    assert name == "__version__" or found.__doc__


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_benchmarks_import_names_that_are_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("real_vs_ai."):
            module = importlib.import_module(node.module)
            for name in node.names:
                # A module of a folder is no attribute until it is imported.
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        _ = real_vs_ai.judge


def test_importing_the_package_loads_no_library():
    source = "import sys, real_vs_ai; print({'numpy', 'openvino', 'keras'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(
    not (REPOSITORY / "models/released/model.h5").is_file(), reason="needs the released models"
)
def test_examples_of_the_serving_guide_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(REPOSITORY / "models", target_is_directory=True)
    picture = REPOSITORY / "models/released/figures/roc.png"
    for name in ("photograph.jpg", "thumbnail.jpg"):
        (tmp_path / name).write_bytes(picture.read_bytes())
    guide = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/serving.md", "exec"), names)
    assert "We can't judge this picture" in capsys.readouterr().out
