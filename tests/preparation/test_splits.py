"""The split plan meets its shares, keeps contents together and depends on contents alone."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.preparation.splits import LabelConflictError, plan_split
from real_vs_ai.preparation.splitting import three_fractions

THREE = {"train": 0.7, "validation": 0.15, "test": 0.15}
FOUR_TO_ONE = {"train": 0.8, "validation": 0.2}


def image_of(origin, content, label, split=""):
    return ManifestRow("", content, label, split, "source", 8, 8, "PNG", origin)


def images_of(counts, *, fixed_split="", prefix=""):
    return [
        image_of(f"{prefix}{label}/{i}", f"{prefix}{label}-{i}", label, fixed_split)
        for label, count in counts.items()
        for i in range(count)
    ]


def plan(images, fractions=THREE, *, seed=42, keep_duplicates=False, groups=None):
    options = {"seed": seed, "keep_duplicates": keep_duplicates}
    return plan_split(images, groups=groups or {}, fractions=fractions, **options)


def sizes(result):
    return Counter(result.splits.values())


def test_published_sizes_give_114000_23000_and_23000_images():
    flat = plan(images_of({"Fake": 10_000, "Real": 10_000}))
    train_test = plan(
        [
            *images_of({"Fake": 50_000, "Real": 50_000}),
            *images_of({"Fake": 10_000, "Real": 10_000}, fixed_split="test", prefix="t"),
        ],
        FOUR_TO_ONE,
        keep_duplicates=True,
    )
    augmented_copies = 20_000
    counts = {
        split: sizes(flat)[split] + sizes(train_test)[split]
        for split in ("train", "validation", "test")
    }
    counts["train"] += augmented_copies
    assert counts == {"train": 114_000, "validation": 23_000, "test": 23_000}


def test_shares_stay_exact_when_contents_repeat_and_copies_are_kept():
    images = [image_of(str(i), f"content-{min(i, 900)}", "Fake") for i in range(1000)]
    result = plan(images, FOUR_TO_ONE, keep_duplicates=True)
    assert sizes(result) == {"train": 800, "validation": 200}


@pytest.mark.parametrize("copies", [2, 10, 100])
def test_every_split_gets_its_class_despite_many_copies(copies):
    images = [
        *images_of({"Fake": 20}),
        *(image_of(f"copy {i}", "repeated", "Real") for i in range(copies)),
        *images_of({"Real": 2}),
    ]
    splits = plan(images, keep_duplicates=True).splits
    assert len(splits) == len(images)
    assert {splits[image.origin] for image in images if image.label == "Real"} == set(THREE)
    assert len({splits[f"copy {i}"] for i in range(copies)}) == 1


groups = st.lists(
    st.tuples(
        st.integers(0, 25),
        st.sampled_from(["Fake", "Real", "Other"]),
        st.sampled_from(["", "test", "validation"]),
    ),
    min_size=1,
    max_size=80,
)


def build(specification, *, grouped):
    """Enough images of every class to fill the splits, and the drawn ones; groups of the latter."""
    images = images_of({"Fake": 4, "Real": 4, "Other": 4}, prefix="base")
    groups = {}
    for i, (content, label, fixed) in enumerate(specification):
        images.append(image_of(f"{i:03}", f"{label}-{content}", label, fixed))
        if grouped:
            groups[f"{i:03}"] = f"group-{content % 5}"
    return images, groups


@settings(max_examples=200, deadline=None)
@given(groups, st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_groups_stay_whole_and_every_image_is_accounted_for(specification, grouped, keep, shuffler):
    images, groups = build(specification, grouped=grouped)
    result = plan(images, keep_duplicates=keep, groups=groups)
    splits = defaultdict(set)
    for image in images:
        if image.origin in result.splits:
            splits[image.sha256].add(result.splits[image.origin])
            splits[groups.get(image.origin)].add(result.splits[image.origin])
            assert image.split in {"", result.splits[image.origin]}
    del splits[None]
    assert all(len(found) == 1 for found in splits.values())
    places = [*result.splits, *result.duplicates, *result.leaks]
    assert sorted(places) == sorted(image.origin for image in images)
    kept = [*result.duplicates.values(), *result.leaks.values()]
    assert all(path in result.splits for path in kept)
    assert not (keep and result.duplicates)
    shuffler.shuffle(images)
    assert plan(images, keep_duplicates=keep, groups=groups) == result


@given(st.integers(3, 400), st.integers(3, 400))
def test_each_class_is_shared_out_to_within_one_image(n_fake, n_real):
    result = plan(images_of({"Fake": n_fake, "Real": n_real}))
    for label, count in (("Fake", n_fake), ("Real", n_real)):
        shares = Counter(s for path, s in result.splits.items() if path.startswith(label))
        for split, fraction in THREE.items():
            assert abs(shares[split] - max(1, count * fraction)) < 1.5
            assert shares[split] >= 1


def test_new_images_keep_the_place_of_nearly_all_old_ones():
    before = plan(images_of({"Fake": 1000, "Real": 1000}))
    after = plan(images_of({"Fake": 1010, "Real": 1010}))
    moved = sum(after.splits[path] != split for path, split in before.splits.items())
    assert moved < 40


def test_another_seed_is_another_split():
    images = images_of({"Fake": 100, "Real": 100})
    assert plan(images, seed=1).splits != plan(images, seed=2).splits


def test_test_contents_are_removed_from_train():
    images = [*images_of({"Fake": 10, "Real": 10}), image_of("test/copy", "Fake-3", "Fake", "test")]
    result = plan(images, FOUR_TO_ONE)
    assert result.leaks == {"Fake/3": "test/copy"}
    assert result.splits["test/copy"] == "test"


def test_content_under_two_labels_is_an_error_naming_files():
    images = [*images_of({"Fake": 5, "Real": 5}), image_of("Real/x", "Fake-0", "Real")]
    with pytest.raises(LabelConflictError, match=r"Fake/0 \(Fake\) = Real/x \(Real\)"):
        plan(images)


def test_a_class_with_too_few_contents_is_refused():
    with pytest.raises(ValueError, match="at least 3 different images of class Real"):
        plan(images_of({"Fake": 10, "Real": 2}))


@pytest.mark.parametrize("text", ["0.5,0,0.4", "1.5,0,-0.5", "0.5,0.5", "a,b,c", "nan,0.5,0.5"])
def test_wrong_fractions_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="sum"):
        three_fractions(text)


def test_contents_land_in_splits_at_random():
    # A shuffle that followed the names would put all the small numbers into one split.
    result = plan(images_of({"Fake": 1000, "Real": 1000}))
    train = [int(path.split("/")[1]) for path, s in result.splits.items() if s == "train"]
    assert 450 < sum(train) / len(train) < 550
