"""Pictures get their label by evidence, sources stay small, and splits stay apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_vs_ai.preparation.collections.collection_list import role_of
from real_vs_ai.preparation.collections.evidence import (
    CONTRADICTION,
    NO_EVIDENCE,
    UNKNOWN_CAMERA,
    FoundFile,
    Traces,
    label_files,
    makes_pictures,
)
from real_vs_ai.preparation.collections.selection import (
    BEYOND_LIMIT,
    DRAWN,
    NEAR_DUPLICATE,
    Known,
    PixelReview,
    limit_sources,
    take,
)
from real_vs_ai.preparation.likeness import HashIndex

COMFYUI = Traces("generator: prompt", generator="ComfyUI, sdxl", prompt="a red fox")
CAMERA = Traces("camera: EXIF", camera="Canon EOS 5D", day="2024:05:01")
NOTHING_KNOWN = Known()


def seconds(year: int) -> int:
    return int(datetime(year, 6, 1, tzinfo=UTC).timestamp())


def found(path: str = "a.jpg", traces: Traces = Traces(), year: int = 2024, **values) -> FoundFile:  # noqa: B008
    return FoundFile(path, path, f"blob of {path}", "", traces, seconds(year), **values)


def decide(*files: FoundFile, makes: bool = False, wanted: str = "", groups: bool = False):
    return label_files(files, makes_pictures=makes, wanted=wanted, folder_groups=groups)


@pytest.mark.parametrize(
    ("file", "label", "made_by"),
    [
        (found(traces=COMFYUI), "Fake", "ComfyUI, sdxl"),
        (found(traces=CAMERA), "Real", "Canon EOS 5D"),
        (found(traces=CAMERA, year=2015), "Real", "Canon EOS 5D"),
        (found(year=2021), "Real", UNKNOWN_CAMERA),
        # Words in its path make only a dated file doubtful.
        (found("results/a.jpg", CAMERA), "Real", "Canon EOS 5D"),
        (found("output/ComfyUI_00001_.png", COMFYUI), "Fake", "ComfyUI, sdxl"),
    ],
)
def test_label_follows_the_evidence(file, label, made_by):
    (entry,), outcomes = decide(file)
    assert (entry.label, entry.made_by, outcomes) == (label, made_by, [])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (found(), NO_EVIDENCE),
        (found(year=2022), NO_EVIDENCE),
        (replace(found(), committed=None), NO_EVIDENCE),
        (found("results/a.jpg", year=2015), NO_EVIDENCE),
        (found("renders/a.png", year=2015), NO_EVIDENCE),
        # Nobody ran Stable Diffusion in 2021.
        (found(traces=COMFYUI, year=2021), CONTRADICTION),
        (replace(found(traces=COMFYUI), problem="made from an input picture"), "made from"),
        (found("Screenshot 2024-05-01.png", COMFYUI), "screenshot"),
        (found("images/thumbs/a.jpg", CAMERA), "small copy"),
        (found("xyz_grid-0001.png", COMFYUI), "sheet"),
        (replace(found(traces=CAMERA), problem="too small: 8 × 8 pixels"), "too small"),
    ],
)
def test_everything_else_is_left_out_with_its_reason(file, reason):
    entries, (outcome,) = decide(file)
    assert entries == []
    assert reason in outcome.detail


def test_old_date_proves_nothing_where_pictures_are_made():
    file = found(year=2020)
    assert decide(file, makes=True)[0] == []
    assert len(decide(found(traces=CAMERA), makes=True)[0]) == 1


@pytest.mark.parametrize(
    ("text", "makes"),
    [
        ("owner/stylegan2-ada", True),
        ("A raytracer in Rust", True),
        ("Image generation with VQGAN+CLIP", True),
        ("Face-swap and deepfakes", True),
        ("owner/photography", False),
        ("Pictures of Michigan, in an organ slogan", False),
    ],
)
def test_repository_that_makes_pictures_is_known_by_its_words(text, makes):
    assert makes_pictures([text]) is makes


def test_second_copy_and_other_class_are_left_out():
    files = [found("a.jpg", CAMERA), replace(found("b.jpg", CAMERA), blob="blob of a.jpg")]
    entries, (outcome,) = decide(*files)
    assert [entry.file.path for entry in entries] == ["a.jpg"]
    assert (outcome.path, outcome.detail) == ("b.jpg", "a.jpg")
    assert decide(*files, wanted="Fake")[0] == []


def test_one_prompt_is_one_group_and_a_day_of_a_camera_too():
    same = replace(COMFYUI, prompt="A  red\nfox", generator="InvokeAI")
    entries, _ = decide(found("a.png", COMFYUI), found("b.png", same))
    assert len({entry.group for entry in entries}) == 1
    later = replace(CAMERA, day="2024:05:02")
    files = [found("a.jpg", CAMERA), found("b.jpg", CAMERA), found("c.jpg", later)]
    groups = [entry.group for entry in decide(*files, groups=True)[0]]
    assert groups[0] == groups[1] != groups[2]
    assert [entry.group for entry in decide(*files)[0]] == [""] * 3


def test_owner_keeps_to_one_split_and_a_fifth_are_test():
    assert role_of("Ann/photos") == role_of("ann/more-photos")
    counts = Counter(role_of(f"owner{i}/photos") for i in range(2000))
    assert 0.17 < counts["test"] / 2000 < 0.23
    assert 0.27 < counts["validation"] / 2000 < 0.33


def review(hashed: int, **facts) -> PixelReview:
    return PixelReview("", (("a.jpg", False, hashed),), **facts)


def chosen(entries, reviews, *, known=NOTHING_KNOWN, limit=20, **how):
    taken, outcomes = take(entries, reviews, limit=limit, known=known, **how)
    return [entry.file.path for entry, _ in taken], [outcome.detail for outcome in outcomes]


def test_source_gives_no_more_than_its_limit_and_spares_replace_what_is_unusable():
    files = [found(f"{i}.jpg", CAMERA) for i in range(40)]
    other = replace(CAMERA, camera="Nokia 1020")
    entries, _ = decide(*files, found("other.jpg", other))
    candidates, beyond = limit_sources(entries, limit=10, role="train", known=NOTHING_KNOWN)
    assert len(candidates) == 16
    assert {outcome.detail for outcome in beyond} == {BEYOND_LIMIT}
    rng = np.random.default_rng(1)
    reviews = [review(int(hashed)) for hashed in rng.integers(0, 2**63, len(candidates))]
    reviews[0] = PixelReview("blank")
    paths, details = chosen(candidates, reviews, limit=10)
    assert len(paths) == 11
    assert Counter(details) == {"blank": 1, BEYOND_LIMIT: 4}
    again, _ = limit_sources(list(reversed(entries)), limit=10, role="train", known=NOTHING_KNOWN)
    assert {entry.file.path for entry in again} == {entry.file.path for entry in candidates}


def test_limit_of_all_sources_together_counts_across_them():
    files = [found(f"{i}.jpg", replace(CAMERA, camera=f"Nokia {i % 2}")) for i in range(40)]
    how = {"limit": 10, "known": NOTHING_KNOWN, "together": True}
    candidates, beyond = limit_sources(decide(*files)[0], role="train", **how)
    assert (len(candidates), len(beyond)) == (15, 25)
    hashes = np.random.default_rng(1).integers(0, 2**63, len(candidates))
    assert len(chosen(candidates, [review(int(h)) for h in hashes], **how)[0]) == 10


def test_near_duplicates_of_its_source_and_of_other_collections_are_left_out():
    other = replace(CAMERA, camera="Nokia 1020")
    entries, _ = decide(*(found(f"{i}.jpg", CAMERA) for i in range(3)), found("other.jpg", other))
    # A bracket of exposures differs in some bits; another camera's picture of them may be taken.
    reviews = list(map(review, (0, 0b111111, 2**40 - 1, 0b111111)))
    assert chosen(entries, reviews) == (["0.jpg", "2.jpg", "other.jpg"], [NEAR_DUPLICATE])
    known = Known([1, 2**40 - 1])
    assert chosen(entries, reviews, known=known)[0] == ["1.jpg"]


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=5))
def test_index_finds_a_hash_within_three_bits_and_no_farther(hashed, flipped):
    other = hashed ^ sum(1 << bit for bit in flipped)
    assert HashIndex([other]).has_near(hashed) == (len(flipped) <= 3)


def test_old_drawing_is_left_out_and_a_generated_one_stays():
    entries, _ = decide(found("a.png", year=2015), found("b.png", COMFYUI))
    reviews = [review(0, drawn=True), review(2**40 - 1, drawn=True)]
    assert chosen(entries, reviews) == (["b.png"], [DRAWN])
