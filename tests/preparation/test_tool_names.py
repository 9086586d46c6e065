"""Pictures get their label by the names that tools give to files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from real_vs_ai.preparation.collections.collection_list import (
    CollectionError,
    read_collected,
    read_collections,
    role_of,
)
from real_vs_ai.preparation.collections.gathering import HELD_OUT, NO_PACKAGE, NO_TOOL
from real_vs_ai.preparation.collections.tool_names import TOOLS, tool_of
from tests.preparation.collection_material import commit, outcomes
from tests.preparation.test_labelling import (
    collect_list,
    evidence_list,
    jpeg,
    picture,
    png,
    rows_of,
)
from tests.serving.trivial_model import encode

UUID = "0a1b2c3d-1111-2222-3333-444455556666"
GEMINI = "Gemini_Generated_Image_k3jq0xk3jq0xk3jq.png"
DREAMINA = "dreamina-2025-07-15-1234-a lake at dawn.png"


@pytest.mark.parametrize(
    ("path", "tool"),
    [
        (f"public/u1234567890_A_photo_of_a_chef_--ar_169_--v_6.1_{UUID}_2.png", "Midjourney"),
        (f"img/jane.doe_a_quiet_street_{UUID}.webp", "Midjourney"),
        ("ChatGPT Image Apr 3, 2025, 09_12_33 AM.png", "ChatGPT"),
        ("assets/ChatGPT-Image-May-12-2025-01_02_03-PM.webp", "ChatGPT"),
        (f"public/images/{GEMINI}", "Gemini"),
        ("a/Generated Image September 02, 2025 - 3_33AM.png", "AI Studio"),
        ("a/DALL·E 2024-05-18 13.59.43 - A kitchen in the morning.webp", "DALL-E 3"),
        ("a/Leonardo_Phoenix_10_A_farmer_in_a_field_0.jpg", "Leonardo"),
        (f"a/Default_A_hotel_room_1_{UUID}_0.jpg", "Leonardo"),
        ("a/lucid-origin_A_quiet_harbour_at_dawn-2.jpg", "Leonardo"),
        ("a/freepik__a-woman-reading-in-a-cafe__12345.jpeg", "Freepik"),
        (f"a/{DREAMINA}", "Dreamina"),
        ("a/jimeng-2025-08-01-1234-portrait.jpeg", "Dreamina"),
        ("a/Firefly a dog on a beach 12345.jpg", "Firefly"),
        ("src/assets/hero-restaurant.jpg", "Lovable"),
    ],
)
def test_name_tells_its_tool(path, tool):
    assert tool_of(path).name == tool


@pytest.mark.parametrize(
    "path",
    [
        "images/IMG_0001.JPG",
        "images/photo_of_a_chef.png",
        f"uploads/{UUID}.png",
        f"uploads/a_WhatsApp_Image_{UUID}.jpg",
        "a/Default_profile.png",
        "a/firefly.jpg",
        "a/freepik__upload__12345.jpeg",
        "a/Gemini_Generated_Image_k3jq0xk3jq0xk3jq-removebg-preview.png",
        "a/ChatGPT Image Apr 3, 2025 logo.png",
        "a/dreamina-2025-07-15-1234-clip.mp4",
        "src/assets/logo.jpg",
        "src/assets/blog/cover.jpg",
        "public/assets/hero-restaurant.jpg",
    ],
)
def test_other_names_and_what_a_tool_leaves_out_tell_nothing(path):
    assert tool_of(path) is None


def collect_by_name(tmp_path, repository, files, date="2025-06-01", **values):
    """Collect a repository by name; gives its rows, and what was left out."""
    head = commit(tmp_path / "mirror" / repository.replace("/", "+"), files, date)
    path = evidence_list(tmp_path / "list.csv", {repository: head}, rule="name", **values)
    collect_list(path, tmp_path / "mirror", tmp_path / "raw")
    folder = tmp_path / "raw" / repository.replace("/", ".")
    return (rows_of(folder), outcomes(folder)) if folder.exists() else ({}, {})


def test_pictures_are_generated_and_made_by_the_tool_and_keep_their_bytes(tmp_path):
    files = {
        GEMINI: png(1),
        "photos/team.png": png(2),
        "ChatGPT Image Apr 3, 2025, 09_12_33 AM.png": jpeg(3, model="EOS 5D"),
        "banner/ChatGPT Image Apr 4, 2025, 09_12_33 AM.png": png(4),
        "thumbs/ChatGPT Image Apr 5, 2025, 09_12_33 AM.png": png(5),
        "Firefly a dog 12345.jpg": jpeg(6)[:2000],
    }
    rows, left = collect_by_name(tmp_path, "ann/site", files)
    made_by = {origin: row["generator"] for origin, row in rows.items()}
    assert made_by == {
        GEMINI: "Gemini",
        "banner/ChatGPT Image Apr 4, 2025, 09_12_33 AM.png": "ChatGPT",
    }
    assert rows[GEMINI]["evidence"] == "name: Gemini"
    kept = tmp_path / "raw" / "ann.site" / rows[GEMINI]["path"]
    assert (kept.parent.name, kept.read_bytes()) == ("fake_images", files[GEMINI])
    assert set(left) == set(files) - set(rows)
    assert NO_TOOL in left["photos/team.png"]
    assert "contradicts itself" in left["ChatGPT Image Apr 3, 2025, 09_12_33 AM.png"]
    assert "small copy" in left["thumbs/ChatGPT Image Apr 5, 2025, 09_12_33 AM.png"]
    assert read_collected(tmp_path / "raw" / "ann.site").role == role_of("ann/site")


def test_name_of_a_tool_on_a_file_from_before_it_proves_nothing(tmp_path):
    assert collect_by_name(tmp_path, "ann/old", {GEMINI: png(1)}, "2019-06-01") == ({}, {})


def test_row_may_take_one_tool_and_leave_paths_out(tmp_path):
    files = {
        GEMINI: png(1),
        "Firefly a dog 12345.jpg": jpeg(2),
        "x/Firefly a cat 12345.jpg": jpeg(3),
    }
    row = {"generator_or_source": "Firefly", "exclude": "^x/", "group": "Firefly a (\\w+)"}
    rows, left = collect_by_name(tmp_path, "ann/site", files, **row)
    assert set(rows) == {"Firefly a dog 12345.jpg"}
    assert rows["Firefly a dog 12345.jpg"]["group"] == "ann.site/dog"
    assert NO_TOOL in left[GEMINI]
    path = evidence_list(
        tmp_path / "wrong.csv", {"ann/site": "0" * 40}, rule="name", generator_or_source="Fireflies"
    )
    with pytest.raises(CollectionError, match=r"Expected ChatGPT, .* found 'Fireflies'"):
        read_collections(path, names=[])


def test_tool_that_is_held_out_is_test_only(tmp_path):
    assert any(tool.held_out for tool in TOOLS.values())
    files = {GEMINI: png(1), DREAMINA: png(2)}
    rows, left = collect_by_name(tmp_path, "ann/train", files, role="train")
    assert set(rows) == {GEMINI}
    assert HELD_OUT in left[DREAMINA]
    rows, _ = collect_by_name(tmp_path, "bob/test", {DREAMINA: png(3)}, role="test")
    assert set(rows) == {DREAMINA}


def test_repository_gives_twenty_pictures_of_all_its_tools_together(tmp_path):
    files = {f"Firefly a dog {10000 + i}.jpg": jpeg(i) for i in range(14)}
    files |= {f"Gemini_Generated_Image_{i}.jpg": jpeg(100 + i) for i in range(14)}
    rows, left = collect_by_name(tmp_path, "ann/site", files)
    assert (len(rows), len(left)) == (20, 8)
    assert {row["generator"] for row in rows.values()} == {"Firefly", "Gemini"}


def test_lovable_picture_needs_the_package_and_the_encoder_of_the_tool(tmp_path):
    package = json.dumps({"devDependencies": {"lovable-tagger": "^1.1.7"}}).encode()
    pixels = {name: np.asarray(picture(i)) for i, name in enumerate(("hero", "own", "large"))}
    files = {
        "src/assets/hero.jpg": encode(pixels["hero"], "JPEG", quality=75),
        "src/assets/own.jpg": encode(pixels["own"], "JPEG", quality=90),
        "src/assets/large.jpg": encode(pixels["large"], "JPEG", quality=75, subsampling="4:4:4"),
        "src/assets/camera.jpg": jpeg(5, model="EOS 5D", quality=75),
    }
    rows, left = collect_by_name(tmp_path, "ann/site", files | {"package.json": package})
    assert {o: row["generator"] for o, row in rows.items()} == {"src/assets/hero.jpg": "Lovable"}
    assert {reason for path, reason in left.items() if path.startswith("src/")} == {
        "left outnot encoded as the tool encodes its pictures"
    }
    files |= {"package.json": b"{}", GEMINI: png(9)}
    rows, left = collect_by_name(tmp_path, "bob/site", files)
    assert set(rows) == {GEMINI}
    assert NO_PACKAGE in left["src/assets/hero.jpg"]


def test_large_unnumbered_midjourney_file_may_be_a_grid(tmp_path):
    large = {"side": 2048}
    files = {
        f"u12345678_a_chef_{UUID}.png": png(1, **large),
        f"u12345678_a_cook_{UUID}_0.png": png(2, **large),
        f"u12345678_a_waiter_{UUID}.png": png(3, side=512),
    }
    rows, left = collect_by_name(tmp_path, "ann/site", files)
    assert set(left) == {f"u12345678_a_chef_{UUID}.png"}
    assert len(rows) == 2
