"""The cache makes each compiled model once and whole, and drops it when it no longer fits."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from real_vs_ai import Detector
from real_vs_ai.model_file import ModelMetadata, write_metadata
from real_vs_ai.serving import keras_graph, model_cache
from real_vs_ai.serving.conversion import IR_NAME, ConversionError
from tests.serving.trivial_model import uniform_image


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a converter that counts its calls."""
    calls = []

    def convert(model_path, *, output_dir, stored=None):
        calls.append(threading.get_ident())
        time.sleep(0.2)
        (output_dir / IR_NAME).write_bytes(model_path.read_bytes())
        return output_dir / IR_NAME

    monkeypatch.setenv("REAL_VS_AI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_cache, "convert", convert)
    return calls


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(b"weights")
    return path


def test_a_second_use_finds_what_the_first_made(cache, model):
    assert model_cache.cached_ir(model) == model_cache.cached_ir(model)
    assert len(cache) == 1


def test_simultaneous_first_uses_convert_once(cache, model):
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(model_cache.cached_ir, [model] * 8))
    assert len(set(entries)) == 1
    assert len(cache) == 1


def test_changed_model_replaces_its_cache_entry(cache, model):
    old = model_cache.cached_ir(model)
    model.write_bytes(b"other weights")
    new = model_cache.cached_ir(model)
    assert new.ir.read_bytes() == b"other weights"
    assert not old.folder.exists()


def test_new_thresholds_keep_the_entry_and_new_weights_get_another(cache, model_with):
    first = model_cache.cached_ir(model_with(own_weights=True, upper_threshold=0.6))
    path = model_with(own_weights=True, upper_threshold=0.6)
    second = model_cache.cached_ir(path)
    assert first != second
    write_metadata(path, ModelMetadata(class_names=("a", "b"), image_size=32, temperature=2.0))
    assert model_cache.cached_ir(path) == second
    assert len(cache) == 2


def test_new_model_is_opened_once_for_its_fingerprint_and_its_weights(model_with, monkeypatch):
    opened, enter = [], keras_graph.StoredModel.__enter__
    monkeypatch.setattr(
        keras_graph.StoredModel, "__enter__", lambda file: opened.append(file.path) or enter(file)
    )
    path = model_with(own_weights=True)
    assert model_cache.cached_ir(path).ir.is_file()
    assert opened == [path]


def test_untouched_file_is_not_read_again(cache, model_with, monkeypatch):
    path = model_with(own_weights=True)
    os.utime(path, (0, 0))
    entry = model_cache.cached_ir(path)
    with monkeypatch.context() as patch:
        patch.setattr(model_cache, "_network_fingerprint", None)
        assert model_cache.cached_ir(path) == entry
    assert model_cache.cached_ir(model_with(own_weights=True)) != entry


def test_another_layer_of_features_gets_another_entry(cache, model_with, monkeypatch):
    path = model_with()
    plain = model_cache.cached_ir(path)
    monkeypatch.setattr(model_cache, "feature_layer", lambda path: "head_dense")
    assert model_cache.cached_ir(path) != plain


def test_other_models_keep_their_entries(cache, model, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(b"third weights")
    kept = model_cache.cached_ir(other)
    model_cache.cached_ir(model)
    assert kept.ir.is_file()


def test_entries_of_another_version_are_not_used_and_removed(cache, model, monkeypatch):
    old = model_cache.cached_ir(model)
    monkeypatch.setattr(model_cache, "_versions", lambda: {"openvino": "next"})
    new = model_cache.cached_ir(model)
    assert new.folder != old.folder
    assert not old.folder.exists()


@pytest.mark.parametrize("damage", ["remove the model", "empty the description"])
def test_a_damaged_entry_is_made_again(cache, model, damage):
    entry = model_cache.cached_ir(model)
    if damage == "remove the model":
        entry.ir.unlink()
    else:
        (entry.folder / "entry.json").write_text("")
    assert model_cache.cached_ir(model).ir.read_bytes() == b"weights"


def test_failed_conversion_leaves_no_cache_entry(cache, model, monkeypatch):
    def fail(model_path, *, output_dir, stored):
        (output_dir / IR_NAME).write_bytes(b"half")
        raise ConversionError("killed")

    monkeypatch.setattr(model_cache, "convert", fail)
    with pytest.raises(ConversionError):
        model_cache.cached_ir(model)
    folders = [p for p in (model_cache.cache_dir() / "models").iterdir() if p.is_dir()]
    assert folders == []


def test_model_changed_during_conversion_is_not_cached(cache, model, monkeypatch):
    def convert_slowly(model_path, *, output_dir, stored):
        (output_dir / IR_NAME).write_bytes(b"form of the new one")
        model_path.write_bytes(b"replaced meanwhile")

    monkeypatch.setattr(model_cache, "convert", convert_slowly)
    with pytest.raises(ConversionError, match="changed while it was converted"):
        model_cache.cached_ir(model)
    assert not [p for p in (model_cache.cache_dir() / "models").iterdir() if p.is_dir()]


def test_leftovers_of_a_killed_conversion_are_removed_later(cache, model):
    abandoned = model_cache.cache_dir() / "models" / ".0123.abc"
    abandoned.mkdir(parents=True)
    recent = abandoned.with_name(".4567.def")
    recent.mkdir()
    os.utime(abandoned, (0, 0))
    model_cache.cached_ir(model)
    assert not abandoned.exists()
    assert recent.exists()


def test_open_detector_keeps_working_after_its_file_is_replaced(model_with, detector):
    path = model_with(own_weights=True)
    opened = Detector.open(path, engine="openvino", precision="f32")
    images = [uniform_image(10 * index) for index in range(1, 21)]
    expected = [verdict.probability_fake for verdict in detector.predict_batch(images)]
    model_with(own_weights=True)
    Detector.open(path, engine="openvino", precision="f32")
    found = [verdict.probability_fake for verdict in opened.predict_batch(images)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_verdict_comes_even_without_a_cache_folder(cache, model, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("REAL_VS_AI_CACHE", str(in_the_way))
    entry = model_cache.cached_ir(model)
    assert entry.is_temporary
    assert entry.ir.read_bytes() == b"weights"
    model_cache.discard(entry)
    assert not entry.folder.exists()


def test_floating_point_leaves_nothing_but_the_network_in_the_cache(detector, model_path):
    detector.predict_batch([uniform_image(9 * index) for index in range(20)])
    entry = model_cache.cached_ir(model_path)
    names = {path.name for path in entry.folder.iterdir() if path.name.startswith(("f32", "bf16"))}
    assert names == set()
