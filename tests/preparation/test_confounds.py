"""The confound report fires where files give the class away, and only there."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.images import ImageError
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.file_traits import FileTraits, _equalise_one, measure_files, read_traits
from real_vs_ai.preparation.manifest import ManifestRow
from tests.preparation.material import FOUR_TO_ONE, image_bytes, merge, smooth_image, split, unpack

SHARED = Path(os.environ.get("REAL_VS_AI_SHARED", Path(__file__).parents[3] / "shared"))


def traits(label, *, n, width=100, **changes):
    values = {
        "source": "s",
        "width": width,
        "height": 100,
        "format": "JPEG",
        "compression": (500, 700),
        "exif": False,
    }
    sizes = np.random.default_rng(sum(label.encode())).integers(5000, 9000, n)
    return [FileTraits(label, file_size=int(size), **{**values, **changes}) for size in sizes]


GIVEAWAYS = {
    "size in pixels": ({"width": 559}, {"width": 1024}),
    "square": ({"width": 100}, {"width": 101}),
    "file format": ({"format": "PNG"}, {"format": "JPEG"}),
    "JPEG quality": ({"compression": (300, 400)}, {"compression": (900, 1000)}),
    "EXIF presence": ({"exif": True}, {"exif": False}),
    "source": ({"source": "a"}, {"source": "b"}),
}


@pytest.mark.parametrize("trait", GIVEAWAYS)
def test_revealing_trait_is_named_in_the_warning(trait):
    fake, real = GIVEAWAYS[trait]
    report = measure_files([*traits("Fake", n=40, **fake), *traits("Real", n=40, **real)], seed=1)
    assert report.by_trait[trait] == 1.0
    assert trait in report.warning
    assert report.low <= report.accuracy <= report.high


def test_report_shows_format_and_shape_shares_per_class():
    samples = [
        *traits("Fake", n=30, format="PNG"),
        *traits("Fake", n=10, width=200),
        *traits("Real", n=20, width=300),
    ]
    report = measure_files(samples, seed=1)
    assert report.by_class["Fake"]["PNG"] == report.by_class["Fake"]["square"] == 0.75
    assert report.by_class["Real"]["JPEG"] == 1.0
    assert report.by_class["Real"]["square"] == 0.0
    assert "75%" in str(report)


def test_source_of_a_collection_does_not_count_as_a_confound(tmp_path):
    (tmp_path / "a.png").write_bytes(image_bytes(1, file_format="PNG"))
    row = ManifestRow("a.png", "", "Fake", "train", "set", 8, 8, "PNG", "")
    collected = ManifestRow("a.png", "", "Fake", "train", "set", 8, 8, "PNG", "", "GAN", "set", "")
    found = read_traits([row, collected], root=tmp_path, pool=Pool(1))
    assert [traits.source for traits in found] == ["set", ""]


@pytest.mark.parametrize("counts", [{"Fake": 200, "Real": 200}, {"a": 300, "b": 20, "c": 20}])
def test_alike_files_raise_no_warning_however_many_there_are_of_a_class(counts):
    samples = [sample for label, n in counts.items() for sample in traits(label, n=n)]
    report = measure_files(samples, seed=1)
    assert report.chance == pytest.approx(1 / len(counts))
    assert report.warning == ""
    assert abs(report.accuracy - report.chance) < 0.15


def test_too_few_images_give_no_report():
    assert measure_files([*traits("Fake", n=3), *traits("Real", n=30)], seed=1) is None


def test_traits_are_read_from_the_files(tmp_path):
    exif = Image.Exif()
    exif[271] = "Camera"
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=exif, quality=50)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "b.jpg").write_bytes(image_bytes(1, quality=95))
    (tmp_path / "c.png").write_bytes(image_bytes(1, file_format="PNG"))
    rows = [
        ManifestRow(n, "", "Fake", "train", "s", 8, 8, "", "") for n in ("a.jpg", "b.jpg", "c.png")
    ]
    first, second, third = read_traits(rows, root=tmp_path, pool=Pool(1))
    assert (first.exif, second.exif, third.exif) == (True, False, False)
    assert first.compression[0] > second.compression[0] > 0 == third.compression[0]
    assert first.file_size == len(buffer.getvalue())


@pytest.fixture
def two_sizes(tmp_path):
    """Fake images of 40 × 40 pixels, real ones of 64 × 64."""
    for label, size in (("fake", (40, 40)), ("real", (64, 64))):
        folder = tmp_path / "data" / "raw" / "set" / label
        write_pictures(folder, 40, size, seed=1000 * (label == "real"))
    return tmp_path / "data"


def write_pictures(folder, count, size, *, seed):
    folder.mkdir(parents=True)
    for i in range(count):
        smooth_image(seed + i, size).save(folder / f"{i}.png")


def prepare(data, **changes):
    options = {"confounds": True, "overwrite": True}
    made = split(data / "raw" / "set", data / "split", **options)
    return made, merge([data / "split" / "set"], data, **options, **changes)


def test_splitting_and_merging_write_the_report(two_sizes):
    for summary, folder in zip(
        prepare(two_sizes), (two_sizes / "split" / "set", two_sizes), strict=True
    ):
        assert "WARNING" in str(summary)
        report = json.loads((folder / "confounds.json").read_text(encoding="utf-8"))
        assert report["by_trait"]["size in pixels"] == 1.0
        assert "size in pixels" in report["warning"]
    # A merge without a report leaves none that describes other data.
    merge([two_sizes / "split" / "set"], two_sizes, overwrite=True)
    assert not (two_sizes / "confounds.json").exists()


def test_equalised_images_no_longer_give_the_class_away(two_sizes):
    _, merged = prepare(two_sizes, equalise=32)
    assert merged.confounds.warning == ""
    assert {(row.width, row.height, row.format) for row in merged.rows} == {(32, 32, "JPEG")}
    tables = set()
    for row in merged.rows:
        with Image.open(two_sizes / row.path) as image:
            assert image.size == (32, 32)
            tables.add(str(image.quantization))
    assert len(tables) == 1


def test_equalised_images_are_said_to_differ_in_their_detail(two_sizes):
    _, merged = prepare(two_sizes, equalise=32)
    assert merged.confounds.alike
    assert "how much detail the pictures hold" in str(merged.confounds)
    sharp = [replace(s, file_size=s.file_size + 9000) for s in traits("Real", n=40)]
    told = str(measure_files([*traits("Fake", n=40), *sharp], seed=1))
    assert "WARNING" in told and "how much detail the pictures hold" in told
    assert "--equalise" not in told


def test_warning_on_a_small_source_is_not_hidden_by_a_large_one(tmp_path):
    for label, size in (("fake", (40, 40)), ("real", (64, 64))):
        seed = 1000 * (label == "real")
        write_pictures(tmp_path / "raw" / "small" / label, 40, size, seed=seed)
        write_pictures(tmp_path / "raw" / "large" / label, 400, (40, 40), seed=seed + 100)
    folders = []
    for name in ("small", "large"):
        split(tmp_path / "raw" / name, tmp_path / "split")
        folders.append(tmp_path / "split" / name)
    report = merge(folders, tmp_path, confounds=True).confounds
    assert report.warning == ""
    assert report.by_source["small"].warning and not report.by_source["large"].warning
    assert "WARNING: small: Without looking at the pictures" in str(report)
    stored = json.loads((tmp_path / "confounds.json").read_text(encoding="utf-8"))
    assert stored["by_source"]["small"]["accuracy"] == 1.0


def test_equalising_never_enlarges(two_sizes):
    with pytest.raises(ValueError, match="--equalise 40 or less"):
        prepare(two_sizes, equalise=48)
    assert not (two_sizes / "train").exists()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real data sets are not at hand")
@pytest.mark.parametrize(
    "name, fires", [("fake-or-real-sample.zip", True), ("cifake-mini.zip", False)]
)
def test_real_set_with_a_confound_warns_and_cifake_does_not(tmp_path, name, fires):
    (unpacked,) = unpack(SHARED / "data" / name, tmp_path / "raw")
    fractions = {"fractions": FOUR_TO_ONE} if name == "cifake-mini.zip" else {}
    summary = split(unpacked.output_dir, tmp_path / "split", confounds=True, **fractions)
    assert bool(summary.confounds.warning) is fires


def test_an_image_that_cannot_be_equalised_is_named(two_sizes):
    prepare(two_sizes)
    (path,) = list((two_sizes / "train" / "Fake").iterdir())[:1]
    broken = path.read_bytes()[:60]
    path.write_bytes(broken)
    job = (path.relative_to(two_sizes).as_posix(), "x.jpg")
    with pytest.raises(ImageError, match=rf"{path.stem}.* cannot be equalised"):
        _equalise_one(job, str(two_sizes), str(two_sizes), 32)
