"""Pairs of a real image and its reconstruction differ in pixels only."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import DataReconstruction
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.errors import InputError
from real_vs_ai.preparation.augmentation import list_originals
from real_vs_ai.preparation.manifest import ManifestRow, read_manifest, write_manifest
from real_vs_ai.preparation.merging import move_augmented
from real_vs_ai.preparation.reconstruction import choose_originals, cut_part, write_pairs
from tests.preparation.material import image_bytes, snapshot
from tests.test_torch_files import write_archive

NAMES = ("a__0.jpg", "a__1.jpg", "a__2.jpg", "b__0.png", "b__1.jpg")


@pytest.fixture
def data(tmp_path):
    """Training data of two real sources and one of fakes, with a manifest."""
    folder = tmp_path / "data"
    rows = []
    for i, name in enumerate((*NAMES, "c__0.jpg")):
        label, source = ("Fake", "c") if name[0] == "c" else ("Real", name[0])
        options = {"quality": 60 + i} if name.endswith("jpg") else {"file_format": "PNG"}
        path = folder / "train" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(i, size=(50, 41), **options))
        facts = ("x", label, "train", source, 50, 41, "JPEG", f"split/{name}", "", f"set-{source}")
        rows.append(ManifestRow(f"train/{label}/{name}", *facts))
    write_manifest(folder / "manifest.csv", rows)
    return folder


def invert(pixels):
    assert pixels.dtype == np.uint8
    assert not (pixels.shape[0] % 8 or pixels.shape[1] % 8)
    return 255 - pixels


def make_pairs(data, *, per_source=2, seed=1, **changes):
    train_dir = data / "train"
    originals = choose_originals(list_originals(train_dir), per_source=per_source, seed=seed)
    return write_pairs(
        originals,
        **{
            "train_dir": train_dir,
            "output_dir": data / "augmented_train",
            "reconstruct": invert,
            "size": 32,
            "seed": seed,
            "overwrite": False,
            **changes,
        },
    )


def read_pair(data, row):
    """The stored files of a pair: (Fake, Real), as Pillow opens them."""
    name = row.path.partition("/")[2]
    paths = [data / "augmented_train" / label / name for label in ("Fake", "Real")]
    return [Image.open(io.BytesIO(path.read_bytes())) for path in paths]


def test_pair_has_the_encoding_and_size_of_its_original(data):
    summary = make_pairs(data, per_source=9)
    assert len(summary.rows) == 2 * len(NAMES)
    for row in summary.rows:
        original = Image.open(data / row.origin)
        for image in read_pair(data, row):
            assert image.format == original.format == row.format
            assert image.size == (row.width, row.height) == (32, 32)
            if image.format == "JPEG":
                assert image.quantization == original.quantization


def test_fake_is_the_reconstruction_of_the_real_part(data):
    summary = make_pairs(data, per_source=9)
    (png,) = (row for row in summary.rows if row.format == "PNG" and row.label == "Fake")
    fake, real = (np.asarray(image) for image in read_pair(data, png))
    assert np.array_equal(fake, 255 - real)
    whole = np.asarray(Image.open(data / png.origin))
    places = [(y, x) for y in (0,) for x in (0, 16)]
    assert any(np.array_equal(real, whole[y : y + 32, x : x + 32]) for y, x in places)


def test_pairs_move_into_training_with_their_source(data):
    before = snapshot(data)
    made = make_pairs(data).rows
    move_augmented(data)
    after = snapshot(data)
    assert {
        path: after[path] for path in before if path != "manifest.csv"
    }.items() <= before.items()
    rows = {row.path: row for row in read_manifest(data / "manifest.csv")}
    for row in made:
        moved, origin = rows[f"train/{row.path}"], rows[row.origin]
        assert (moved.split, moved.source) == (origin.split, origin.source)
        assert moved.collection == origin.collection
        assert moved.generator == ("taef2" if moved.label == "Fake" else "")
    images = list_labelled_images(data / "train", manifest=data / "manifest.csv")
    held, others = images.positions(["a"])
    pairs = ["__taef2" in images.paths[i] for i in held]
    assert sum(pairs) == 4
    assert sum("__taef2" in images.paths[i] for i in others) == 4


def test_pairs_in_training_are_not_reconstructed_again(data):
    make_pairs(data)
    move_augmented(data)
    again = {row.origin for row in make_pairs(data).rows}
    assert all("taef2" not in origin for origin in again)
    assert not move_augmented(data).rows


def test_each_source_gives_at_most_its_share(data):
    originals = list_originals(data / "train")
    names = [o.row.path for o in choose_originals(originals, per_source=2, seed=1)]
    assert sorted(name[5] for name in names) == ["a", "a", "b", "b"]
    fewer = [o.row.path for o in choose_originals(originals, per_source=1, seed=1)]
    assert set(fewer) < set(names)


def test_seed_alone_decides_the_bytes(data):
    first = make_pairs(data, output_dir=data / "first")
    second = make_pairs(data, output_dir=data / "second")
    assert snapshot(data / "first") == snapshot(data / "second")
    other = make_pairs(data, output_dir=data / "third", seed=2)
    assert first.rows == second.rows != other.rows


def test_parts_lie_on_the_grid_and_inside():
    rows, columns = np.mgrid[:70, :133]
    pixels = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    starts = set()
    for i in range(40):
        part = cut_part(pixels, size=52, key=bytes([i] * 8))
        assert part.shape == (48, 48, 3)
        assert not (part[0, 0] % 16).any()
        starts.add(tuple(part[0, 0, :2]))
    assert len(starts) > 3


def test_unreadable_and_tiny_images_are_reported(data):
    (data / "train" / "Real" / "a__0.jpg").write_bytes(b"\xff\xd8 damaged")
    (data / "train" / "Real" / "b__1.jpg").write_bytes(image_bytes(9, size=(50, 7)))
    summary = make_pairs(data, per_source=9)
    assert sorted(out.path for out in summary.failed) == [
        "train/Real/a__0.jpg",
        "train/Real/b__1.jpg",
    ]
    assert "a__0.jpg" in (data / "augmented_train" / "report.csv").read_text(encoding="utf-8")
    assert "Left out: 2 originals" in str(summary)


def test_nothing_is_replaced_unasked_or_left_half_done(data):
    make_pairs(data)
    before = snapshot(data)
    with pytest.raises(FileExistsError, match="--overwrite"):
        make_pairs(data, seed=2)

    def fail(pixels):
        raise MemoryError

    with pytest.raises(MemoryError):
        make_pairs(data, reconstruct=fail, overwrite=True)
    assert snapshot(data) == before


def test_training_data_without_real_images_is_refused(data):
    originals = [o for o in list_originals(data / "train") if o.row.label == "Fake"]
    with pytest.raises(InputError, match="class Real, found only Fake"):
        choose_originals(originals, per_source=1, seed=1)


@pytest.mark.parametrize("lost", ["encoder", "decoder"])
def test_missing_and_damaged_weights_say_where_they_are(data, monkeypatch, capsys, lost):
    monkeypatch.chdir(data.parent)
    for half in ("encoder", "decoder"):
        write_archive(data / f"taef2_{half}.pth", {"0.bias": np.zeros(3)})
    arguments = ["--weights", str(data)]
    path = data / f"taef2_{lost}.pth"
    path.write_bytes(path.read_bytes()[:-9])
    for found in ("damaged", f"found no taef2_{lost}.pth"):
        assert DataReconstruction.main(arguments) == 1
        (error,) = capsys.readouterr().err.strip().splitlines()
        assert found in error
        assert "madebyollin/taesd, commit " in error
        path.unlink(missing_ok=True)
    assert not (data / "augmented_train").exists()
