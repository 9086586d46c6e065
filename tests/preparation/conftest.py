"""Make the collections that several tests start from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai.preparation.collections.collecting import collect
from real_vs_ai.preparation.collections.collection_list import read_collections
from tests.preparation.collection_material import SIDE, commit, options, sheet_bytes, write_list
from tests.preparation.material import image_bytes
from tests.serving.trivial_model import encode


@pytest.fixture
def mirror(tmp_path) -> Path:
    """Two repositories: photographs, and generated pictures with much that is odd about them."""
    photos = {f"photos/p{i}.jpg": image_bytes(i, size=(SIDE, SIDE)) for i in range(4)}
    fakes = {
        f"img/a{i}.png": image_bytes(50 + i, size=(SIDE, SIDE), file_format="PNG") for i in range(3)
    }
    fakes |= {
        "img/a0_input.png": image_bytes(60, size=(SIDE, SIDE), file_format="PNG"),
        "img/again.png": fakes["img/a1.png"],
        "img/broken.png": fakes["img/a2.png"][:200],
        "img/small.png": image_bytes(61, size=(8, 8), file_format="PNG"),
        "img/blank.png": encode(np.full((SIDE, SIDE, 3), 128, np.uint8)),
        "img/really_jpeg.png": image_bytes(62, size=(SIDE, SIDE)),
        "sheets/one.jpg": sheet_bytes(1),
        "sheets/two.webp": sheet_bytes(2, "WEBP"),
        "README.md": b"no picture",
    }
    folder = tmp_path / "git"
    commits = {
        "owner/photos": commit(folder / "owner+photos" / "repo", photos),
        "owner/fakes": commit(folder / "owner" / "fakes", fakes),
    }
    (tmp_path / "commits.json").write_text(json.dumps(commits))
    return folder


@pytest.fixture
def collected(tmp_path, mirror) -> Path:
    """data/raw with three collections, one for each split."""
    changes = ({"role": "test"}, {}, {})
    collections = read_collections(write_list(tmp_path, *changes), names=[])
    raw = tmp_path / "data" / "raw"
    collect(collections, output_dir=raw, options=options(mirror))
    return raw
