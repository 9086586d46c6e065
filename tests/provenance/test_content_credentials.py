"""The seal of a C2PA manifest is told as it is: a change is a hash that does not match."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from real_vs_ai.core.errors import InputError
from real_vs_ai.provenance import (
    Code,
    FileSays,
    Seal,
    content_credentials,
    describe_origin,
    read_provenance,
    read_trust_list,
    seals,
    trust_lists,
)
from real_vs_ai.verdicts.conclusion import ConclusionCode, conclude
from real_vs_ai.verdicts.verdict import Verdict
from tests.provenance.signing import (
    MIME_TYPES,
    SOURCE_TYPES,
    make_authority,
    manifest_of,
    write_lists,
)

FORMATS = sorted(MIME_TYPES)
# A GIF holds the manifest in blocks of 255 bytes, where the certificate cannot be exchanged.
EXPIRED_FORMATS = sorted(set(FORMATS) - {"GIF"})
NOT_TO_THE_LETTER = {"action": "c2pa.opened"}


@pytest.fixture(scope="module")
def authority():
    return make_authority()


@pytest.fixture
def trusting(authority, tmp_path, monkeypatch):
    """Lets the reader trust the tests' root."""
    path = tmp_path / "trusted.pem"
    path.write_text(f"# The tests' root — and a comment.\n{authority.root_pem}", encoding="utf-8")
    monkeypatch.setenv("REAL_VS_AI_TRUST_LIST", str(path))


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0xFF
    return bytes(changed)


def changed_pixels(data: bytes, file_format: str) -> bytes:
    """One byte differs outside the manifest, which WebP and TIFF hold last."""
    return flipped(data, {"WEBP": 40, "TIFF": 60}.get(file_format, -20))


@pytest.mark.parametrize("file_format", FORMATS)
def test_unchanged_file_of_an_unknown_signer_speaks_for_its_source(authority, file_format):
    seal, source = read_provenance(authority.sign(manifest_of(), file_format=file_format))
    assert (seal.seal, seal.signer, seal.speaks_for) == (Seal.UNKNOWN_SIGNER, "Test signer", None)
    assert "name of Tests (Test signer): the file is unchanged since" in seal.text
    assert (source.code, source.speaks_for, source.seal) == (Code.GENERATED, "Fake", seal.seal)
    assert "certificate of their own" in source.forgery


@pytest.mark.parametrize("file_format", FORMATS)
def test_trusted_signer_is_called_trusted(authority, trusting, file_format):
    seal, source = read_provenance(authority.sign(manifest_of(), file_format=file_format))
    assert (seal.seal, seal.known_by) == (Seal.TRUSTED, "own")
    assert "the signer is trusted (by a list of your own)" in seal.text
    assert "private key" in source.forgery


@pytest.mark.parametrize("file_format", EXPIRED_FORMATS)
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "on no list of trusted ones."),
        ([NOT_TO_THE_LETTER], "Also, parts of its digital seal are not written as the standard"),
    ],
)
def test_expired_or_not_to_the_letter_is_no_change(authority, file_format, more, said):
    manifest = manifest_of(more=more)
    seal, source = read_provenance(authority.sign(manifest, file_format=file_format, expired=True))
    assert (seal.seal, seal.known_by) == (Seal.EXPIRED, "")
    assert said in seal.text
    assert source.speaks_for == "Fake"
    assert "signingCredential.expired" in seal.failures


@pytest.mark.parametrize("file_format", EXPIRED_FORMATS)
def test_expired_seal_says_whose_it_was_since_when_and_who_knows_its_issuer(
    authority, trusting, file_format
):
    data = authority.sign(manifest_of(), file_format=file_format, expired=True)
    seal, source = read_provenance(data)
    day = f"{datetime.now(UTC) - timedelta(days=370):%Y-%m-%d}"
    assert (seal.seal, seal.known_by, seal.expired_on) == (Seal.EXPIRED, "own", day)
    assert seal.text == (
        "Sealed by Tests (Test signer): the file is unchanged since. "
        f"The seal expired on {day}; who issued it is trusted (by a list of your own)."
    )
    assert "private key" in source.forgery
    # An expired key may have leaked: it is no signature to rely on.
    assert describe_origin([seal, source]).says is FileSays.AI


def test_certificate_that_did_not_sign_vouches_for_no_expired_seal(
    authority, trusting, monkeypatch
):
    """Anybody can put the public certificate of somebody else into a manifest."""
    data = make_authority().sign(manifest_of(), expired=True)
    monkeypatch.setattr(seals, "find_signer", lambda *store, **number: [authority.leaf])
    seal = read_provenance(data)[0]
    assert (seal.seal, seal.known_by, seal.expired_on) == (Seal.EXPIRED, "", "")
    assert "Its digital seal has expired." in seal.text


@pytest.mark.parametrize(
    ("holds", "seal"),
    [
        ("signers", Seal.TRUSTED),
        ("single_signers", Seal.TRUSTED),
        ("time_stamps", Seal.UNKNOWN_SIGNER),
    ],
)
def test_lists_of_the_package_are_asked_without_any_option(
    authority, tmp_path, monkeypatch, holds, seal
):
    pem = authority.signer_pem if holds == "single_signers" else authority.root_pem
    write_lists(tmp_path, **{holds: pem})
    monkeypatch.setattr(trust_lists, "FOLDER", tmp_path)
    findings = read_provenance(authority.sign(manifest_of()))
    assert findings[0].seal is seal
    trusted = seal is Seal.TRUSTED
    assert describe_origin(findings).says is (FileSays.AI_SIGNED if trusted else FileSays.AI)


def test_certificate_for_another_use_is_trusted_where_a_list_accepts_that_use(
    tmp_path, monkeypatch
):
    use = "1.3.6.1.4.1.311.76.59.1.9"
    microsoft = make_authority(use=use)
    data = microsoft.sign(manifest_of())
    for uses, seal in (("1.3.6.1.5.5.7.3.4", Seal.IRREGULAR), (use, Seal.TRUSTED)):
        folder = tmp_path / seal
        folder.mkdir()
        write_lists(folder, signers=microsoft.root_pem, uses=f"// a comment\n{uses}\n")
        monkeypatch.setattr(trust_lists, "FOLDER", folder)
        assert read_provenance(data)[0].seal is seal


@pytest.mark.parametrize(
    ("file_format", "expired"),
    [*((name, False) for name in FORMATS), *((name, True) for name in EXPIRED_FORMATS)],
)
def test_changed_file_proves_nothing(authority, file_format, expired):
    data = authority.sign(manifest_of(), file_format=file_format, expired=expired)
    (seal,) = read_provenance(changed_pixels(data, file_format))
    assert (seal.seal, seal.speaks_for) == (Seal.CHANGED, None)
    assert "does NOT fit" in seal.text
    assert "proves nothing" in seal.forgery


@pytest.mark.parametrize(
    ("source_type", "says"),
    [
        ("trainedAlgorithmicMedia", FileSays.AI_SIGNED),
        ("compositeWithTrainedAlgorithmicMedia", FileSays.PART_AI),
        ("digitalCapture", FileSays.CAPTURED),
    ],
)
def test_signed_file_says_its_source_until_it_is_changed(authority, trusting, source_type, says):
    data = authority.sign(manifest_of(source_type))
    origin = describe_origin(read_provenance(data))
    assert (origin.says, origin.history) == (says, ("created",))
    changed = describe_origin(read_provenance(changed_pixels(data, "JPEG")))
    assert (changed.says, changed.history) == (FileSays.SEAL_CHANGED, ())


def test_signed_label_of_a_trusted_signer_is_concluded_as_signed(authority, trusting):
    fake = Verdict("Fake", 0.97, 0.97, {"Fake": 0.97, "Real": 0.03})
    found = conclude(fake, read_provenance(authority.sign(manifest_of())))
    assert found.code is ConclusionCode.LABELLED_AI_SIGNED


def test_signer_on_no_list_is_told_from_a_trusted_one(authority, trusting):
    seal = read_provenance(make_authority().sign(manifest_of()))[0]
    assert (seal.seal, seal.known_by) == (Seal.UNKNOWN_SIGNER, "")
    assert "its signer is on no list of trusted ones" in seal.text


@pytest.mark.parametrize("content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\nAA"])
def test_list_without_certificates_is_an_error_that_names_it(tmp_path, monkeypatch, content):
    path = tmp_path / "trusted.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("REAL_VS_AI_TRUST_LIST", str(path))
    with pytest.raises(InputError, match=r"REAL_VS_AI_TRUST_LIST.*trusted\.pem"):
        read_trust_list()


def test_broken_signature_is_a_change(authority):
    data = authority.sign(manifest_of(agent="Painter of one"))
    (seal,) = read_provenance(data.replace(b"Painter of one", b"Painter of two"))
    assert seal.seal is Seal.CHANGED


def test_manifest_without_a_readable_claim_cannot_be_checked(authority):
    data = authority.sign(manifest_of())
    (seal,) = read_provenance(data.replace(b"instanceID", b"instanceIX"))
    assert (seal.seal, seal.speaks_for) == (Seal.UNREADABLE, None)


def test_manifests_without_end_are_not_checked(authority):
    data = authority.sign(manifest_of()) + b"jumdc2ma" * 200
    (seal,) = read_provenance(data)
    assert (seal.seal, seal.speaks_for) == (Seal.UNREADABLE, None)
    assert "too many parts" in seal.text


def test_seal_is_judged_from_what_the_library_checked():
    passed = ["claimSignature.validated", "assertion.dataHash.match"]
    generator = ["signingCredential.untrusted", "signingCredential.expired", "claim.malformed"]
    judge = seals.judge_seal
    assert judge("Invalid", passed=passed, failed=generator) is Seal.EXPIRED
    assert judge("Invalid", passed=passed, failed=generator[2:]) is Seal.IRREGULAR
    assert judge("Invalid", passed=passed[:1], failed=generator) is Seal.UNREADABLE
    assert judge("Invalid", passed=passed[1:], failed=["claimSignature.missing"]) is Seal.UNREADABLE
    for kind in ("dataHash", "boxesHash", "bmffHash", "hashedURI"):
        mismatch = [f"assertion.{kind}.mismatch"]
        assert judge("Invalid", passed=passed, failed=mismatch) is Seal.CHANGED
    assert judge("Invalid", passed=passed, failed=["claimSignature.mismatch"]) is Seal.CHANGED


def test_form_of_an_input_pictures_seal_takes_nothing_from_a_trusted_one():
    passed = ["claimSignature.validated", "assertion.dataHash.match", "signingCredential.trusted"]
    judge = functools.partial(seals.judge_seal, "Invalid", passed=passed, failed=[])
    assert judge(below=["assertion.ingredient.malformed"]) is Seal.TRUSTED
    assert judge(below=["assertion.dataHash.mismatch"]) is Seal.IRREGULAR
    assert judge(below=["ingredient.manifest.mismatch"]) is Seal.IRREGULAR


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (["claim.malformed"], "a part of its digital seal is damaged"),
        (["signingCredential.ocsp.revoked"], "the signer's certificate was revoked"),
        (["assertion.action.malformed"], "are not written as the standard asks"),
        ([], "for a reason that it does not name"),
    ],
)
def test_what_does_not_hold_in_a_seal_is_said_in_words(failed, said):
    text = seals._describe(Seal.IRREGULAR, "Tests", "", "", failed)
    assert said in text and not any(code in text for code in failed)


def test_generator_is_named_by_its_manifest(authority):
    seal, source = read_provenance(authority.sign(manifest_of(agent="GPT-image by OpenAI")))
    assert "ChatGPT" in seal.generator
    assert source.generator == seal.generator
    headline = describe_origin([seal, source]).headline
    assert headline == f"The file says it was made by a generative model ({seal.generator})."


def test_known_generator_that_names_no_source_type_is_believed(authority):
    manifest = manifest_of(agent="Image Creator from Designer")
    del manifest["assertions"][0]["data"]["actions"][0]["digitalSourceType"]
    _, source = read_provenance(authority.sign(manifest))
    assert (source.code, source.speaks_for) == (Code.GENERATED, "Fake")
    assert source.text == (
        "Its C2PA manifest says: made by a generative model (Microsoft Designer)."
    )


def test_camera_speaks_for_real_and_names_no_generator(authority):
    seal, source = read_provenance(authority.sign(manifest_of("digitalCapture", agent="Gemini")))
    assert (source.code, source.speaks_for, seal.generator) == (Code.CAPTURED, "Real", "")


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


def test_damaged_manifests_never_fail(authority):
    whole = authority.sign(manifest_of(agent="Camera"))
    generator = np.random.default_rng(0)
    start = whole.index(b"jumb")
    for _ in range(60):
        data = bytearray(whole)
        for position in generator.integers(start, len(data), 6):
            data[position] = generator.integers(256)
        assert all(finding.text for finding in read_provenance(bytes(data)))
    assert read_provenance(whole[: start + 400])


@pytest.mark.parametrize(
    "manifest",
    [
        {"assertions": [{"label": "c2pa.actions", "data": 1}]},
        {"assertions": [{"label": "c2pa.actions", "data": {"actions": [1, None]}}]},
        {"ingredients": [{"active_manifest": "a", "relationship": 5}] * 50},
        {"ingredients": [None], "signature_info": []},
        {"assertions": 7},
    ],
)
def test_odd_reports_of_the_library_never_fail(manifest, monkeypatch):
    pytest.importorskip("c2pa")
    store = {"active_manifest": "a", "manifests": {"a": manifest}}
    reader = type(
        "Reader",
        (),
        {
            "__init__": lambda self, *args, **options: None,
            "__enter__": lambda self: self,
            "__exit__": lambda self, *error: None,
            "get_validation_state": lambda self: "Valid",
            "json": lambda self: json.dumps(store),
        },
    )
    monkeypatch.setattr("c2pa.Reader", reader)
    assert content_credentials.read_content_credentials(b"c2pa jumb")[0].code is Code.CREDENTIALS
