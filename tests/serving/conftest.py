"""Open the trivial model once, and make a folder of images for it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from real_vs_ai.models.model_file import write_metadata
from tests.serving.trivial_model import METADATA, encode, save_model, uniform_image


@pytest.fixture(scope="session")
def model_path(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.h5", METADATA)


@pytest.fixture(scope="session")
def detector(model_path):
    from real_vs_ai import Detector

    return Detector.open(model_path, engine="openvino", precision="f32")


@pytest.fixture
def model_with(model_path, tmp_path):
    """A copy of the trivial model whose metadata says otherwise."""

    def copy(**changes) -> Path:
        path = tmp_path / "changed.h5"
        shutil.copyfile(model_path, path)
        write_metadata(path, dataclasses.replace(METADATA, **changes))
        return path

    return copy


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Ten images of rising brightness in two folders, one broken file, one that is no image."""
    folder = tmp_path / "photos"
    for index in range(10):
        path = folder / ("a" if index < 5 else "b") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(uniform_image(index * 28)))
    (folder / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (folder / "notes.txt").write_text("not an image")
    return folder
