"""The cache makes each compiled model once and whole, and drops it when it no longer fits."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from real_vs_ai import Detector
from real_vs_ai.serving import conversion
from real_vs_ai.serving.conversion import IR_NAME, ConversionError
from tests.serving.trivial_model import uniform_image


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a converter that counts its calls."""
    calls = []

    def convert(model_path, *, output_dir):
        calls.append(threading.get_ident())
        time.sleep(0.2)
        (output_dir / IR_NAME).write_bytes(model_path.read_bytes())
        return output_dir / IR_NAME

    monkeypatch.setenv("REAL_VS_AI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(conversion, "convert", convert)
    return calls


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"weights")
    return path


def test_a_second_use_finds_what_the_first_made(cache, model):
    assert conversion.cached_ir(model) == conversion.cached_ir(model)
    assert len(cache) == 1


def test_simultaneous_first_uses_convert_once(cache, model):
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(conversion.cached_ir, [model] * 8))
    assert len(set(entries)) == 1
    assert len(cache) == 1


def test_changed_model_replaces_its_cache_entry(cache, model):
    old = conversion.cached_ir(model)
    model.write_bytes(b"other weights")
    new = conversion.cached_ir(model)
    assert new.ir.read_bytes() == b"other weights"
    assert not old.folder.exists()


def test_other_models_keep_their_entries(cache, model, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(b"third weights")
    kept = conversion.cached_ir(other)
    conversion.cached_ir(model)
    assert kept.ir.is_file()


def test_entries_of_another_version_are_not_used_and_removed(cache, model, monkeypatch):
    old = conversion.cached_ir(model)
    monkeypatch.setattr(conversion, "_versions", lambda: {"openvino": "next"})
    new = conversion.cached_ir(model)
    assert new.folder != old.folder
    assert not old.folder.exists()


@pytest.mark.parametrize("damage", ["remove the model", "empty the description"])
def test_a_damaged_entry_is_made_again(cache, model, damage):
    entry = conversion.cached_ir(model)
    if damage == "remove the model":
        entry.ir.unlink()
    else:
        (entry.folder / "entry.json").write_text("")
    assert conversion.cached_ir(model).ir.read_bytes() == b"weights"


def test_failed_conversion_leaves_no_cache_entry(cache, model, monkeypatch):
    def fail(model_path, *, output_dir):
        (output_dir / IR_NAME).write_bytes(b"half")
        raise ConversionError("killed")

    monkeypatch.setattr(conversion, "convert", fail)
    with pytest.raises(ConversionError):
        conversion.cached_ir(model)
    folders = [p for p in (conversion.cache_dir() / "models").iterdir() if p.is_dir()]
    assert folders == []


def test_model_changed_during_conversion_is_not_cached(cache, model, monkeypatch):
    def convert_slowly(model_path, *, output_dir):
        (output_dir / IR_NAME).write_bytes(b"form of the new one")
        model_path.write_bytes(b"replaced meanwhile")

    monkeypatch.setattr(conversion, "convert", convert_slowly)
    with pytest.raises(ConversionError, match="changed while it was converted"):
        conversion.cached_ir(model)
    assert not [p for p in (conversion.cache_dir() / "models").iterdir() if p.is_dir()]


def test_leftovers_of_a_killed_conversion_are_removed_later(cache, model):
    abandoned = conversion.cache_dir() / "models" / ".0123.abc"
    abandoned.mkdir(parents=True)
    recent = abandoned.with_name(".4567.def")
    recent.mkdir()
    os.utime(abandoned, (0, 0))
    conversion.cached_ir(model)
    assert not abandoned.exists()
    assert recent.exists()


def test_open_detector_keeps_working_after_its_file_is_replaced(model_with, detector):
    path = model_with(created="first")
    opened = Detector.open(path, engine="openvino", precision="f32")
    images = [uniform_image(10 * index) for index in range(1, 21)]
    expected = [verdict.probability_fake for verdict in detector.predict_batch(images)]
    model_with(created="second")
    Detector.open(path, engine="openvino", precision="f32")
    found = [verdict.probability_fake for verdict in opened.predict_batch(images)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_verdict_comes_even_without_a_cache_folder(cache, model, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("REAL_VS_AI_CACHE", str(in_the_way))
    entry = conversion.cached_ir(model)
    assert entry.is_temporary
    assert entry.ir.read_bytes() == b"weights"
    conversion.discard(entry)
    assert not entry.folder.exists()
