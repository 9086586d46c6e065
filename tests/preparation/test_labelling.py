"""Folders and repositories are labelled by what their files say, however hostile those are."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

import DataCollector
from real_vs_ai.preparation.collections.collection_list import read_collected, role_of
from real_vs_ai.preparation.collections.selection import NEAR_DUPLICATE, STRADDLING
from real_vs_ai.provenance.watermarks import _MARKS
from tests.preparation.collection_material import (
    commit,
    git,
    let_fetch_parts,
    outcomes,
    write,
    write_rows,
)
from tests.preparation.material import image_bytes, smooth_image, split
from tests.provenance.test_watermarks import hide
from tests.provenance.test_watermarks import picture as marked_picture
from tests.serving.trivial_model import encode

SIDE = 256
WEBUI = "a red fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Model: dreamshaper_8"
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "denoise": 1.0}},
}
LOAD = {"4": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/{}"></rdf:Description></rdf:RDF></x:xmpmeta>'
)


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """Smooth shapes with some noise, so that it is neither plain nor like another seed's."""
    noise = np.random.default_rng(seed).normal(0, 12, (side, side, 3))
    pixels = np.asarray(smooth_image(seed, (side, side)), dtype=float) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def png(seed: int, side: int = SIDE, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    return encode(np.asarray(picture(seed, side)), "PNG", pnginfo=info)


def jpeg(
    seed: int, *, make: str = "Canon", model: str = "", exposure: bool = True, **options
) -> bytes:
    exif = Image.Exif()
    if model:
        exif[ExifTags.Base.Make] = make
        exif[ExifTags.Base.Model] = model
    if model and exposure:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    told = {"exif": exif} if model else {}
    return encode(np.asarray(picture(seed)), "JPEG", **told | options)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it has very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def label(folder: Path, output: Path, *arguments: str) -> int:
    paths = ["--label-by-evidence", str(folder), "--output-dir", str(output)]
    return DataCollector.main([*paths, "--workers", "1", *arguments])


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of images.csv by origin."""
    with (folder / "images.csv").open(newline="") as file:
        return {row["origin"]: row for row in csv.DictReader(file)}


def test_each_kind_of_trace_labels_its_file_and_bytes_stay(tmp_path, capsys):
    files = {
        "webui.png": png(1, parameters=WEBUI),
        "comfyui.png": png(2, prompt=json.dumps(GRAPH)),
        "invoke.png": png(3, Dream='"a red fox" -s 50 -S 42 -W 512 -H 512 -C 7.5'),
        "novelai.png": png(4, Software="NovelAI", Comment='{"prompt": "a red fox", "steps": 28}'),
        "labelled.jpg": jpeg(5, xmp=XMP.format("trainedAlgorithmicMedia").encode()),
        "marked.png": encode(hide(marked_picture(512, 512), _MARKS[0])),
        "img2img-samples/marked.png": encode(hide(marked_picture(512, 512, seed=1), _MARKS[0])),
        "camera.jpg": jpeg(6, model="EOS 5D"),
        "input.png": png(7, prompt=json.dumps(GRAPH | LOAD)),
        "edit.png": png(8, parameters=WEBUI + ", Denoising strength: 0.5, Mask blur: 4"),
        "composite.jpg": jpeg(9, xmp=XMP.format("compositeWithTrainedAlgorithmicMedia").encode()),
        "workflow.png": png(10, workflow='{"nodes": [], "links": [], "last_node_id": 1}'),
        "no_exposure.jpg": jpeg(11, model="EOS 5D", exposure=False),
        "unknown.jpg": jpeg(15, make="--", model="--"),
        "bare.jpg": jpeg(12),
        "small.png": png(13, side=255, parameters=WEBUI),
        "row.jpg": image_bytes(14, size=(3 * SIDE, SIDE)),
        "notes.txt": b"no picture",
    }
    assert label(write(tmp_path / "mine", files), tmp_path / "raw") == 0
    rows = rows_of(tmp_path / "raw" / "mine")
    assert {origin: row["generator"] for origin, row in rows.items()} == {
        "webui.png": "Stable Diffusion, dreamshaper_8",
        "comfyui.png": "ComfyUI, sdxl",
        "invoke.png": "InvokeAI",
        "novelai.png": "NovelAI",
        "labelled.jpg": "unnamed generator",
        "marked.png": _MARKS[0].generator,
        "camera.jpg": "Canon EOS 5D",
    }
    for origin, row in rows.items():
        kept = tmp_path / "raw" / "mine" / row["path"]
        assert kept.read_bytes() == files[origin]
        folder = "real_images" if origin == "camera.jpg" else "fake_images"
        assert kept.parent.name == folder
        assert row["evidence"]
    left = outcomes(tmp_path / "raw" / "mine")
    assert set(left) == set(files) - set(rows) - {"notes.txt"}
    assert "made from an input picture: LoadImage" in left["input.png"]
    assert "made from an input picture" in left["img2img-samples/marked.png"]
    assert "composite" in left["composite.jpg"]
    assert "too small: 255 × 255" in left["small.png"]
    assert "a strip" in left["row.jpg"]
    assert "4 no evidence of its origin" in capsys.readouterr().out


def test_hostile_files_are_passed_over_with_their_reasons(tmp_path):
    secret = write(tmp_path / "elsewhere", {"secret.png": png(1, parameters=WEBUI)}) / "secret.png"
    broken_exif = (
        jpeg(2, model="EOS 5D").replace(b"II*\0", b"II*\xff").replace(b"MM\0*", b"MM\xff*")
    )
    odd = "o\tdd\n\u202e\u6f22" + "x" * 60 + ".png"
    files = {
        "long text.png": png(3, parameters=WEBUI + "x" * 3_000_000, prompt="{" * 100_000),
        "packed text.png": png(4)[:-12]
        + struct.pack(">I", 10_009)
        + b"zTXtprompt\0\0"
        + zlib.compress(b"{" * 10_000_000)[:10_001].ljust(10_001, b"\0")
        + bytes(4)
        + png(4)[-12:],
        "broken.jpg": broken_exif,
        "bomb.png": bomb(100_000, 100_000),
        "cut.png": png(5, parameters=WEBUI)[:20_000],
        "empty.png": b"",
        odd: png(6, parameters=WEBUI),
    }
    folder = write(tmp_path / "mine", files)
    (folder / "link.png").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    assert label(folder, tmp_path / "raw") == 0
    rows = rows_of(tmp_path / "raw" / "mine")
    assert set(rows) <= {"long text.png", odd}
    assert odd in rows
    left = outcomes(tmp_path / "raw" / "mine")
    assert "pixels" in left["bomb.png"]
    assert "link.png" not in left
    assert len({*rows, *left}) == len(files)


def test_files_committed_before_2022_are_real_and_edited_or_forged_ones_are_not(tmp_path):
    folder = tmp_path / "photos"
    commit(
        folder, {"a/old.jpg": jpeg(1), "edited.jpg": jpeg(2), "moved.jpg": jpeg(3)}, "2015-05-01"
    )
    (folder / "moved.jpg").rename(folder / "a" / "elsewhere.jpg")
    commit(folder, {"edited.jpg": jpeg(4), "new.jpg": jpeg(5)}, "2023-05-01")
    write(folder, {"not committed.jpg": jpeg(6)})
    assert label(folder, tmp_path / "raw") == 0
    rows = rows_of(tmp_path / "raw" / "photos")
    assert {origin: row["evidence"] for origin, row in rows.items()} == {
        "a/old.jpg": "committed 2015-05-01",
        "a/elsewhere.jpg": "committed 2015-05-01",
    }
    # The same from the bare repository, which holds no file of its own.
    assert label(folder / ".git", tmp_path / "bare") == 0
    assert set(rows_of(tmp_path / "bare" / "git")) == set(rows)


def test_forged_dates_and_files_that_were_never_committed_prove_nothing(tmp_path):
    forged = tmp_path / "forged"
    commit(forged, {"a.jpg": jpeg(1)}, "2023-01-01")
    commit(forged, {"b.jpg": jpeg(2)}, "2014-01-01")
    assert label(forged, tmp_path / "raw") == 1
    ancient = tmp_path / "ancient"
    commit(ancient, {"a.jpg": jpeg(1)}, "2001-01-01")
    assert label(ancient, tmp_path / "raw") == 1
    old = tmp_path / "old"
    commit(old, {"a.jpg": jpeg(1)}, "2015-01-01")
    assert label(write(old, {"b.jpg": jpeg(2)}), tmp_path / "raw") == 0
    assert set(rows_of(tmp_path / "raw" / "old")) == {"a.jpg"}


def test_shallow_history_counts_only_if_its_newest_commit_is_old(tmp_path):
    for name, date in (("old", "2019-01-01"), ("new", "2023-01-01")):
        commit(tmp_path / name, {"a.jpg": jpeg(1)}, "2015-01-01")
        commit(tmp_path / name, {"b.jpg": jpeg(2)}, date)
        shallow = tmp_path / f"shallow-{name}"
        git("clone", "--quiet", "--depth=1", (tmp_path / name).as_uri(), shallow, folder=tmp_path)
        assert label(shallow, tmp_path / "raw") == (name == "new")
    evidence = {row["evidence"] for row in rows_of(tmp_path / "raw" / "shallow-old").values()}
    assert evidence == {"committed 2019-01-01"}


def evidence_list(path: Path, repositories: dict[str, str], **values: str) -> Path:
    """A list of repositories, by commit, to be labelled by evidence."""
    columns = "pattern label generator_or_source role"
    row = dict.fromkeys(columns.split(), "") | {"licence": "CC0", "rule": "evidence"} | values
    names = ({"collection": r.replace("/", "."), "repository": r} for r in repositories)
    rows = [row | name | {"commit": repositories[name["repository"]]} for name in names]
    return write_rows(path, rows)


@pytest.fixture
def mirrored(tmp_path) -> tuple[Path, dict[str, str]]:
    """Git directories of three repositories; the last shares pictures and a prompt with others."""
    mirror = tmp_path / "mirror"
    shared, prompt = jpeg(1, model="EOS 5D"), WEBUI.replace("fox", "bear")
    files = {
        "ann/photos": {"p/1.jpg": shared, "p/2.jpg": jpeg(2, model="EOS 5D")},
        "cara/pictures": {"1.png": png(3, parameters=WEBUI), "2.png": png(4, parameters=prompt)},
        "emil/mixed": {
            "1.jpg": jpeg(1, model="EOS 5D", quality=60),
            "2.jpg": jpeg(5, model="EOS 5D"),
            "3.png": png(6, parameters=WEBUI),
        },
    }
    return mirror, {
        name: commit(mirror / name.replace("/", "+"), contents, "2024-01-01")
        for name, contents in files.items()
    }


def collect_list(path: Path, mirror: Path, output: Path, *arguments: str) -> int:
    sources = ["--list", str(path), "--from", str(mirror), "--output-dir", str(output)]
    return DataCollector.main([*sources, "--workers", "1", *arguments])


def test_list_of_repositories_keeps_near_duplicates_prompts_and_owners_apart(tmp_path, mirrored):
    mirror, commits = mirrored
    path = evidence_list(tmp_path / "list.csv", commits)
    assert collect_list(path, mirror, tmp_path / "raw") == 0
    roles = [read_collected(tmp_path / "raw" / r.replace("/", ".")).role for r in commits]
    assert (
        roles == [role_of(repository) for repository in commits] == ["validation", "train", "test"]
    )
    left = outcomes(tmp_path / "raw" / "emil.mixed")
    assert NEAR_DUPLICATE in left["1.jpg"]
    assert STRADDLING in left["3.png"]
    assert set(rows_of(tmp_path / "raw" / "emil.mixed")) == {"2.jpg"}
    path = evidence_list(tmp_path / "list.csv", commits, role="train")
    assert collect_list(path, mirror, tmp_path / "one-split") == 0
    assert set(rows_of(tmp_path / "one-split" / "emil.mixed")) == {"2.jpg", "3.png"}


def test_kept_out_repositories_and_files_are_left_out_wherever_they_turn_up(tmp_path, mirrored):
    mirror, commits = mirrored
    kept = hashlib.sha256(jpeg(5, model="EOS 5D")).hexdigest()[:24]
    lists = write(
        tmp_path,
        {
            "files.txt": f"# pictures\n{kept}\n".encode(),
            "repositories.txt": hashlib.sha256(b"ann/photos").hexdigest().encode(),
        },
    )
    path = evidence_list(tmp_path / "list.csv", commits)
    names = [str(lists / "files.txt"), str(lists / "repositories.txt")]
    assert collect_list(path, mirror, tmp_path / "raw", "--kept-out", *names) == 0
    assert not (tmp_path / "raw" / "ann.photos").exists()
    assert "kept out" in outcomes(tmp_path / "raw" / "emil.mixed")["2.jpg"]
    assert "1.jpg" in rows_of(tmp_path / "raw" / "emil.mixed")
    (tmp_path / "wrong.txt").write_text("photo.jpg\n")
    assert collect_list(path, mirror, tmp_path / "raw", "--kept-out", str(tmp_path / "wrong.txt"))


def test_history_is_fetched_for_the_dates(tmp_path, monkeypatch):
    server = tmp_path / "server" / "owner" / "photos"
    commit(server, {"a.jpg": jpeg(1)}, "2015-01-01")
    head = commit(server, {"b.jpg": jpeg(2)}, "2023-01-01")
    let_fetch_parts(server)
    path = evidence_list(tmp_path / "list.csv", {"owner/photos": head})
    monkeypatch.chdir(tmp_path)
    arguments = ["--list", str(path), "--server", (tmp_path / "server").as_uri(), "--workers", "1"]
    assert DataCollector.main([*arguments, "--output-dir", str(tmp_path / "raw")]) == 0
    assert set(rows_of(tmp_path / "raw" / "owner.photos")) == {"a.jpg"}


def test_users_folder_is_divided_among_the_splits_by_prompt(tmp_path):
    files = {
        f"{i}.png": png(i, parameters=WEBUI.replace("fox", f"fox {i // 2}")) for i in range(24)
    }
    files |= {f"{i}.jpg": jpeg(100 + i, model=f"EOS {i}") for i in range(20)}
    write(tmp_path / "mine", files)
    assert label(tmp_path / "mine", tmp_path / "few") == 0
    assert len(rows_of(tmp_path / "few" / "mine")) == 40
    assert label(tmp_path / "mine", tmp_path / "raw", "--source-limit", "100") == 0
    assert len(rows_of(tmp_path / "raw" / "mine")) == 44
    summary = split(tmp_path / "raw" / "mine", tmp_path / "split")
    assert {row.split for row in summary.rows} == {"train", "validation", "test"}
    splits = {}
    for row in summary.rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(names) == 1 for names in splits.values())
    assert {row.label for row in summary.rows} == {"Fake", "Real"}


def test_folder_that_holds_its_own_output_is_refused(tmp_path, capsys):
    folder = write(
        tmp_path / "mine", {"a.png": image_bytes(1, size=(SIDE, SIDE), file_format="PNG")}
    )
    assert label(folder, folder / "raw") == 1
    assert "apart from its input" in capsys.readouterr().err
    assert label(tmp_path / "nowhere", tmp_path / "raw") == 1
