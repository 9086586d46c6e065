"""A picture says what it was made from: edits, composites, and pictures given to a generator."""

from __future__ import annotations

import pytest

from real_vs_ai.provenance import Code, describe_origin, read_provenance
from tests.provenance.signing import SOURCE_TYPES, manifest_of


def edit_of(*pictures: tuple[str, bytes], source_type: str = "", authority) -> bytes:
    """A picture edited from others, which are its ingredients."""
    names = [f"ingredient{i}" for i in range(len(pictures))]
    actions = [
        {
            "action": "c2pa.opened" if relation == "parentOf" else "c2pa.placed",
            "parameters": {"ingredientIds": [name]},
        }
        for name, (relation, _) in zip(names, pictures, strict=True)
    ]
    if not any(relation == "parentOf" for relation, _ in pictures):
        kind = SOURCE_TYPES + "digitalCreation"
        actions.insert(0, {"action": "c2pa.created", "digitalSourceType": kind})
    edit = {"action": "c2pa.edited"}
    if source_type:
        edit["digitalSourceType"] = SOURCE_TYPES + source_type
    manifest = {
        "claim_generator_info": [{"name": "Editor"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [*actions, edit]}}],
    }
    described = [
        ({"title": f"{name}.jpg", "relationship": relation, "label": name}, data)
        for name, (relation, data) in zip(names, pictures, strict=True)
    ]
    return authority.sign(manifest, ingredients=described)


def test_edit_of_a_generated_picture_says_so(authority):
    generated = authority.sign(manifest_of(agent="Adobe Firefly"))
    data = edit_of(("parentOf", generated), authority=authority)
    # The chain goes on through a second edit.
    for picture in (data, edit_of(("parentOf", data), authority=authority)):
        seal, source = read_provenance(picture)
        assert seal.actions == ("opened", "edited")
        assert seal.ingredients == ("parentOf ingredient0.jpg",)
        assert (source.code, source.speaks_for) == (Code.GENERATED, "Fake")
        assert source.generator == "Adobe Firefly"
        origin = describe_origin([seal, source])
        assert origin.from_picture == ""
        assert origin.headline == (
            "The file says it was edited from a picture that was made by a generative model "
            "(Adobe Firefly)."
        )


@pytest.mark.parametrize(
    "manifest", [{"claim_generator_info": [{"name": "ChatGPT"}]}, manifest_of(agent="Designer")]
)
def test_only_component_of_a_manifest_is_the_whole_picture(authority, manifest):
    generated = authority.sign(manifest_of(agent="GPT-4o"))
    described = {"title": "image.png", "relationship": "componentOf", "label": "image"}
    findings = read_provenance(authority.sign(manifest, ingredients=[(described, generated)]))
    origin = describe_origin(findings)
    assert (origin.speaks_for, origin.composite, origin.from_picture) == ("Fake", False, "")
    assert origin.headline.startswith("The file says it was made by a generative model (")


def test_composite_of_a_photograph_and_a_generated_part_says_so(authority):
    photograph = authority.sign(manifest_of("digitalCapture", agent="Camera"))
    generated = authority.sign(manifest_of(agent="Adobe Firefly"))
    edited = edit_of(("parentOf", generated), authority=authority)
    for part in (generated, edited):
        pictures = (("parentOf", photograph), ("componentOf", part))
        origin = describe_origin(read_provenance(edit_of(*pictures, authority=authority)))
        assert (origin.speaks_for, origin.composite) == ("Fake", True)
        assert origin.headline.startswith("The file says it was composed with a picture that was")


def test_generative_fill_in_a_photograph_is_a_composite(authority):
    photograph = authority.sign(manifest_of("digitalCapture", agent="Camera"))
    kind = "compositeWithTrainedAlgorithmicMedia"
    data = edit_of(("parentOf", photograph), source_type=kind, authority=authority)
    findings = read_provenance(data)
    assert [f.code for f in findings] == [Code.CREDENTIALS, Code.COMPOSITE, Code.CAPTURED]
    assert [f.speaks_for for f in findings] == [None, "Fake", None]


@pytest.mark.parametrize(
    ("relation", "source_type", "from_picture"),
    [
        ("parentOf", "digitalCapture", "C2PA ingredient photo.jpg"),
        ("inputTo", "digitalCapture", "C2PA ingredient photo.jpg"),
        ("parentOf", "trainedAlgorithmicMedia", ""),
    ],
)
def test_generator_that_was_given_a_photograph_says_so(
    authority, relation, source_type, from_picture
):
    photograph = authority.sign(manifest_of(source_type, agent="Camera"))
    parameters = {"ingredientIds": ["photo"]}
    if relation == "parentOf":
        manifest = manifest_of(action="c2pa.opened")
        manifest["assertions"][0]["data"]["actions"][0]["parameters"] = parameters
    else:
        manifest = manifest_of()
    described = {"title": "photo.jpg", "relationship": relation, "label": "photo"}
    findings = read_provenance(authority.sign(manifest, ingredients=[(described, photograph)]))
    origin = describe_origin(findings)
    assert (origin.from_picture, origin.speaks_for) == (from_picture, "Fake")


def test_edit_of_a_photograph_stays_a_photograph(authority):
    photograph = authority.sign(manifest_of("digitalCapture", agent="Camera"))
    data = edit_of(("parentOf", photograph), authority=authority)
    assert [f.speaks_for for f in read_provenance(data)] == [None, "Real"]
