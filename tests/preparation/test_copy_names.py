"""Names of augmented copies are recognised, and never those of other files."""

from __future__ import annotations

import pytest

from real_vs_ai.config import is_augmented_name
from real_vs_ai.preparation.copies import copy_names, names_for_copies
from real_vs_ai.preparation.placing import MAX_NAME_BYTES


@pytest.mark.parametrize(
    "name, expected", [("a__augmented1.jpg", True), ("a__augmented.jpg", False), ("a.jpg", False)]
)
def test_names_of_copies_are_recognised(name, expected):
    assert is_augmented_name(f"Fake/{name}") is expected


def test_names_of_copies_of_different_originals_differ():
    long = "n" * 242
    originals = ["a.jpg", "a.gif", "a.png", "a.gif.png", f"{long}.gif", f"{long}.gif.png"]
    names = names_for_copies([f"Fake/{name}" for name in sorted(originals)])
    copies = {copy for name in names for copy in copy_names(name, 11, file_format="PNG")}
    assert len(copies) == 66
    assert all(len(copy) <= MAX_NAME_BYTES for copy in copies)


@pytest.mark.parametrize(
    "names, expected",
    [
        (["a.jpg", "b.png", "b.webp"], ["a.jpg", "b.png", "b-2.webp"]),
        (["A.jpg", "a.JPG"], ["A.jpg", "a-2.JPG"]),
        (["s1/a.png", "s1_a.png", "s1_a-2.png"], ["s1_a.png", "s1_a-3.png", "s1_a-2.png"]),
        (["a.gif", "a.gif.png"], ["a.gif", "a.gif.png"]),
    ],
)
def test_names_that_copies_are_named_after(names, expected):
    assert names_for_copies([f"Fake/{name}" for name in names]) == expected
