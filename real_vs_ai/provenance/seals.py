"""Judge the seal of a C2PA manifest: is the file unchanged, and who sealed it?"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from real_vs_ai.core.images import DECODER_ERRORS
from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.findings import Seal, clean
from real_vs_ai.provenance.trust_lists import TIME_STAMPS, find_issuer_list, find_signer

# What the C2PA standard's status codes say (section "Standard status codes" of version 2.2).
_MISMATCHES = frozenset(
    {
        "assertion.dataHash.mismatch",
        "assertion.boxesHash.mismatch",
        "assertion.bmffHash.mismatch",
        "assertion.collectionHash.mismatch",
        "assertion.hashedURI.mismatch",
        "claimSignature.mismatch",
    }
)
_MATCHES = frozenset(
    {"assertion.dataHash.match", "assertion.boxesHash.match", "assertion.bmffHash.match"}
)
_TRUSTED = "signingCredential.trusted"
_UNTRUSTED = "signingCredential.untrusted"
_EXPIRED = "signingCredential.expired"
_REASONS = {
    "signingCredential.invalid": "seal.invalid_use",
    "signingCredential.ocsp.revoked": "seal.revoked",
}
_FORGERY = {
    Seal.TRUSTED: "forgery.trusted",
    Seal.CHANGED: "forgery.changed",
    Seal.UNREADABLE: "forgery.unreadable",
}


@dataclass(frozen=True)
class CheckedSeal:
    """A seal and what is known of it.

    Attributes:
        text: One or two sentences.
        known_by: The list that knows the signer or its issuer: "c2pa", "cai", "own", or "".
        expired_on: The date, "2026-01-13", or "".
        failures: The codes of the C2PA standard for what does not hold.
    """

    seal: Seal
    text: str
    forgery: str
    known_by: str = ""
    expired_on: str = ""
    failures: tuple[str, ...] = ()


@functools.lru_cache(maxsize=4)
def c2pa_context(trust: str) -> Any:
    """A context of the C2PA library that asks no other machine; None without the library.

    Args:
        trust: The settings of this name, in JSON.
    """
    try:
        import c2pa
    except ImportError:
        return None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False}
    return c2pa.Context(c2pa.Settings.from_dict({"verify": verify, "trust": json.loads(trust)}))


def check_seal(store: dict[str, Any], *, state: str, data: bytes, reader: Any) -> CheckedSeal:
    """Judge the seal of a file's active manifest.

    Args:
        store: What the C2PA library reports of the manifest store.
        state: Its own word on the whole.
        data: The file.
        reader: The library's reader of this file, still open.
    """
    results = store.get("validation_results") or {}
    passed, failed = (
        list(dict.fromkeys(str(one["code"]) for one in _statuses(results, outcome)))
        for outcome in ("success", "failure")
    )
    below = [str(one["code"]) for one in _ingredient_failures(results)]
    seal = judge_seal(state, passed=passed, failed=failed, below=below)
    signature = store["manifests"][store["active_manifest"]].get("signature_info") or {}
    known_by, expired_on = "", ""
    if seal is Seal.TRUSTED:
        known_by = str(results.get("trustListUri") or "")
        # To the library, who may date signatures may sign pictures, too.
        if known_by == TIME_STAMPS:
            seal, known_by = Seal.UNKNOWN_SIGNER, ""
    if seal is Seal.EXPIRED:
        expired_on, known_by = _identify_expired(store, data, reader)
    forgery = _FORGERY.get(seal, "forgery.own_certificate")
    if seal is Seal.EXPIRED and known_by:
        forgery = "forgery.expired"
    return CheckedSeal(
        seal,
        _describe(seal, _holder(signature), known_by, expired_on, [*failed, *below]),
        Message(forgery),
        known_by=known_by,
        expired_on=expired_on,
        failures=tuple(clean(code) for code in failed if code != _UNTRUSTED)[:10],
    )


def _statuses(results: dict[str, Any], outcome: str) -> Sequence[dict[str, Any]]:
    return (results.get("activeManifest") or {}).get(outcome, [])


def _ingredient_failures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What does not hold in the manifests of pictures that were used."""
    deltas = results.get("ingredientDeltas") or []
    found = ((one.get("validationDeltas") or {}).get("failure") or [] for one in deltas)
    return [failure for failures in found for failure in failures]


def judge_seal(
    state: str, *, passed: Sequence[str], failed: Sequence[str], below: Sequence[str] = ()
) -> Seal:
    """The seal's state from what the library checked.

    The library calls a manifest invalid for any departure from the standard; only a hash or a
    signature that does not match means a change.

    Args:
        below: What does not hold in the manifests of pictures that were used. Their form is not
            this file's fault.
    """
    if _MISMATCHES.intersection(failed):
        return Seal.CHANGED
    if state == "Trusted":
        return Seal.TRUSTED
    if state == "Valid":
        return Seal.UNKNOWN_SIGNER
    if "claimSignature.validated" not in passed or not _MATCHES.intersection(passed):
        return Seal.UNREADABLE
    if _EXPIRED in failed:
        return Seal.EXPIRED
    if _TRUSTED in passed and not failed and not any("mismatch" in code for code in below):
        return Seal.TRUSTED
    return Seal.IRREGULAR


def _holder(signature: dict[str, Any]) -> str:
    """Whose certificate it is: the organisation, and the name where that says more."""
    organisation, name = (clean(str(signature.get(key) or "")) for key in ("issuer", "common_name"))
    if organisation and name and organisation.lower() != name.lower():
        return f"{organisation} ({name})"
    return organisation or name or Message("seal.nobody")


def _describe(
    seal: Seal, signer: str, known_by: str, expired_on: str, failed: Sequence[str]
) -> Message:
    reasons = [] if seal in {Seal.TRUSTED, Seal.CHANGED, Seal.UNREADABLE} else _reasons(failed)
    form, values = str(seal), {"signer": signer}
    if seal is Seal.EXPIRED and not expired_on:
        form = "expired_undated"
    elif seal is Seal.EXPIRED:
        form, values = form if known_by else "expired_unknown", values | {"date": expired_on}
    elif seal is Seal.TRUSTED and not known_by:
        form = "trusted_unnamed"
    elif seal is Seal.IRREGULAR:
        first, *reasons = reasons or [Message("seal.unnamed")]
        values |= {"reason": first}
    if known_by:
        values |= {"list": Message(f"seal.list_{known_by}")}
    sentence = Message(f"seal.{form}", **values)
    for reason in reasons:
        sentence = Message("seal.also", sentence=sentence, reason=reason)
    return sentence


def _reasons(failed: Sequence[str]) -> list[Message]:
    """What does not hold, in words, each once."""
    sentences = (_reason(code) for code in failed if code not in {_EXPIRED, _UNTRUSTED})
    return [Message(key) for key in dict.fromkeys(sentences)]


def _reason(code: str) -> str:
    other = "seal.claim_damaged" if code.startswith("claim") else "seal.departs"
    return _REASONS.get(code, other)


def _identify_expired(store: dict[str, Any], data: bytes, reader: Any) -> tuple[str, str]:
    """When the signer's certificate expired, and which list knows who issued it; "" where unknown.

    The library has the last word on whose certificate it was: it is asked to trust that
    certificate alone, and does not take another one with the same number for it.
    """
    import c2pa
    from cryptography.hazmat.primitives.serialization import Encoding

    label = store["active_manifest"]
    signature = store["manifests"][label].get("signature_info") or {}
    content = io.BytesIO()
    try:
        reader.resource_to_stream(f"self#jumbf=/c2pa/{label}/c2pa.signature", content)
        number = str(signature.get("cert_serial_number", ""))
        for one in find_signer(content.getvalue(), serial_number=number)[:2]:
            if _is_signed_with(data, one.public_bytes(Encoding.PEM).decode()):
                known_by = find_issuer_list(one, content.getvalue())
                return f"{one.not_valid_after_utc:%Y-%m-%d}", known_by
    except (c2pa.C2paError, *DECODER_ERRORS):
        pass
    return "", ""


def _is_signed_with(data: bytes, certificate: str) -> bool:
    """Whether the library trusts the signer, expired or not, if it trusts this certificate alone.

    Args:
        certificate: In PEM.
    """
    import c2pa

    alone = {"trust_anchors": "", "allowed_list": certificate}
    alone |= {"trust_uri": "alone", "trust_kind": "manifest"}
    context = c2pa_context(json.dumps({"anchors": [alone]}))
    with c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
        results = json.loads(reader.json()).get("validation_results") or {}
    return _UNTRUSTED not in [one["code"] for one in _statuses(results, "failure")]
