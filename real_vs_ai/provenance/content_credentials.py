"""Read content credentials: C2PA manifests, their seal, edit history and ingredients."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.errors import InputError, describe_error
from real_vs_ai.images import DECODER_ERRORS
from real_vs_ai.provenance.findings import Code, Finding, Seal, clean
from real_vs_ai.provenance.labels import describe_source_type, name_generator, named_source_types

# The environment variable that names a PEM file of the certificates of trusted signers.
TRUST_LIST = "REAL_VS_AI_TRUST_LIST"
_MOST_ACTIONS = 20
_MOST_INGREDIENTS = 10
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
_UNTRUSTED = "signingCredential.untrusted"
_SHORTCOMINGS = {
    "signingCredential.expired": "the signer's certificate has expired",
    "signingCredential.invalid": "the signer's certificate is not made for this use",
    "signingCredential.ocsp.revoked": "the signer's certificate was revoked",
}
_MEANINGS = {
    Seal.TRUSTED: "the file is unchanged since, and the signer is trusted",
    Seal.UNKNOWN_SIGNER: (
        "the file is unchanged since; its signer is not on the list of trusted ones"
    ),
    Seal.IRREGULAR: "the file is unchanged since, but",
    Seal.CHANGED: "they do NOT fit the file, which was changed after signing",
    Seal.UNREADABLE: "they cannot be checked against the file",
}
_NOT_CHECKED = (
    "the file is unchanged since; the signer was not checked against a list of trusted ones"
)
_OWN_CERTIFICATE = "Anyone can sign with a certificate of their own: check who the signer is."
_FORGERY = {
    Seal.TRUSTED: "To forge it, one would need the signer's private key.",
    Seal.UNKNOWN_SIGNER: _OWN_CERTIFICATE,
    Seal.IRREGULAR: _OWN_CERTIFICATE,
    Seal.CHANGED: "It does not fit the file, so it proves nothing.",
    Seal.UNREADABLE: "It cannot be checked, so it proves nothing.",
}
# Actions that leave the picture what it was.
_NO_EDITS = frozenset({"created", "opened", "converted", "transcoded", "published", "repackaged"})
_RELATIONS = {
    "parentOf": "Its C2PA manifest's earlier version of the picture",
    "componentOf": "Its C2PA manifest's part placed in the picture",
    "inputTo": "Its C2PA manifest's input picture",
}


def read_content_credentials(data: bytes) -> list[Finding]:
    """Findings of a file's C2PA manifest, its seal first; [] without a manifest.

    Raises:
        InputError: The list of trusted signers cannot be read.
    """
    # The library is native code: only files that carry a manifest store are given to it.
    if b"c2pa" not in data or b"jumb" not in data:
        return []
    context = _c2pa_context(read_trust_list())
    if context is None:
        text = "It carries a C2PA manifest, which was not read: c2pa-python is not installed."
        return [Finding(Code.CREDENTIALS, "C2PA", text, forgery="", seal=Seal.UNREADABLE)]
    import c2pa

    try:
        with c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
            state = reader.get_validation_state() or "Invalid"
            store = json.loads(reader.json())
        return _describe_store(store, state=state)
    except (c2pa.C2paError, *DECODER_ERRORS):
        text = "It carries a C2PA manifest that is damaged."
        forgery = _FORGERY[Seal.UNREADABLE]
        return [Finding(Code.CREDENTIALS, "C2PA", text, forgery=forgery, seal=Seal.UNREADABLE)]


def read_trust_list() -> str:
    """The PEM certificates of the signers to trust; "" if the environment names no list.

    Raises:
        InputError: The file that it names holds none, or cannot be read.
    """
    path = os.environ.get(TRUST_LIST)
    return _read_certificates(Path(path)) if path else ""


@functools.cache
def _read_certificates(path: Path) -> str:
    import ssl

    try:
        # The C2PA library ignores what it cannot read, and would trust nobody.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(
            f"Expected {TRUST_LIST} to name a PEM file of certificates, found {path}: "
            f"{describe_error(error)}."
        ) from error


@functools.cache
def _c2pa_context(trust_list: str):
    try:
        import c2pa
    except ImportError:
        return None
    # A manifest must not make this machine ask other ones.
    settings = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if trust_list:
        settings["trust"] = {"trust_anchors": trust_list}
    return c2pa.Context(c2pa.Settings.from_dict(settings))


@dataclass(frozen=True)
class _Manifest:
    """One manifest of a store, as the library reports it."""

    content: dict

    @functools.cached_property
    def agents(self) -> str:
        """The parts that name tools and source types."""
        claim = [self.content.get(key) for key in ("claim_generator", "claim_generator_info")]
        return json.dumps([*claim, *self.action_entries])

    @functools.cached_property
    def action_entries(self) -> list[dict]:
        return [
            action
            for assertion in self.content.get("assertions", [])
            if str(assertion.get("label", "")).startswith("c2pa.actions")
            for action in assertion["data"]["actions"]
        ]

    @property
    def signer(self) -> str:
        signature = self.content.get("signature_info") or {}
        return clean(str(signature.get("common_name") or signature.get("issuer") or "unknown"))

    @functools.cached_property
    def source_types(self) -> list[str]:
        """Those named; [""] where none is, but a known generator created the picture.

        Microsoft's manifests of early 2024 name no type.
        """
        named = named_source_types(self.agents)
        creators = (a for a in self.action_entries if a.get("action") == "c2pa.created")
        created = any(name_generator(str(action.get("softwareAgent"))) for action in creators)
        return named or ([""] if created else [])

    @functools.cached_property
    def generator(self) -> str:
        """Who made the picture, where the manifest says that a model did."""
        if not any(not name or "algorithmic" in name.lower() for name in self.source_types):
            return ""
        issuer = str((self.content.get("signature_info") or {}).get("issuer", ""))
        agents = (action.get("softwareAgent") or "" for action in self.action_entries)
        names = (one.get("name", "") if isinstance(one, dict) else one for one in agents)
        first_agent = clean(str(next(filter(None, names), "")))
        return name_generator(self.agents) or name_generator(issuer) or first_agent

    @property
    def actions(self) -> tuple[str, ...]:
        names = (str(action.get("action", "")) for action in self.action_entries)
        return tuple(clean(name.removeprefix("c2pa.")) for name in names)[:_MOST_ACTIONS]

    @property
    def is_its_only_ingredient(self) -> bool:
        """Whether the one "component" is the whole picture, as ChatGPT and Designer write it."""
        own = set(self.source_types) - {"trainedAlgorithmicMedia", ""}
        made_otherwise = own or (self.action_entries and not self.source_types)
        return len(self.ingredients) == 1 and not made_otherwise

    @property
    def is_edited(self) -> bool:
        return not _NO_EDITS.issuperset(self.actions)

    @property
    def ingredients(self) -> list[dict]:
        return self.content.get("ingredients", [])[:_MOST_INGREDIENTS]


def _describe_store(store: dict, *, state: str) -> list[Finding]:
    manifest = _Manifest(store["manifests"][store["active_manifest"]])
    statuses = (store.get("validation_results") or {}).get("activeManifest") or {}
    passed, failed = (
        list(dict.fromkeys(str(status["code"]) for status in statuses.get(outcome, [])))
        for outcome in ("success", "failure")
    )
    seal = _judge_seal(state, passed=passed, failed=failed)
    meaning = _MEANINGS[seal]
    if seal is Seal.IRREGULAR:
        meaning += f" {_describe_shortcomings(failed)}"
    elif seal is Seal.UNKNOWN_SIGNER and not read_trust_list():
        meaning = _NOT_CHECKED
    finding = Finding(
        Code.CREDENTIALS,
        "C2PA",
        f"Content credentials (C2PA) signed by {manifest.signer}: {meaning}.",
        forgery=_FORGERY[seal],
        generator=manifest.generator,
        seal=seal,
        signer=manifest.signer,
        actions=manifest.actions,
        field="C2PA",
        ingredients=tuple(
            clean(f"{one.get('relationship', '')} {one.get('title', '')}")
            for one in manifest.ingredients
        ),
    )
    # A manifest that fits another file says nothing about this one's origin.
    return [finding, *(_describe_origins(manifest, store, finding) if seal.is_unbroken else [])]


def _judge_seal(state: str, *, passed: list[str], failed: list[str]) -> Seal:
    """The seal's state from what the library checked.

    The library calls a manifest invalid for any departure from the standard; only a hash or a
    signature that does not match means a change.
    """
    if _MISMATCHES.intersection(failed):
        return Seal.CHANGED
    if state == "Trusted":
        return Seal.TRUSTED
    if state == "Valid":
        return Seal.UNKNOWN_SIGNER
    if "claimSignature.validated" in passed and _MATCHES.intersection(passed):
        return Seal.IRREGULAR
    return Seal.UNREADABLE


def _describe_shortcomings(failed: list[str]) -> str:
    known = [text for code, text in _SHORTCOMINGS.items() if code in failed]
    others = [code for code in failed if code not in {*_SHORTCOMINGS, _UNTRUSTED}]
    if others:
        known.append(f"the manifest departs from the standard ({clean(', '.join(others))})")
    return " and ".join(known) or "the check failed for a reason that it does not name"


def _describe_origins(manifest: _Manifest, store: dict, seal: Finding) -> list[Finding]:
    """What the manifest and its ingredients' manifests say of where the picture comes from."""
    common = replace(seal, actions=(), ingredients=())
    findings = [
        _with_generator(describe_source_type(name, said_by="Its C2PA manifest", common=common))
        for name in manifest.source_types
    ]
    said = {finding.claim for finding in findings}
    for relation, ingredient in itertools.islice(_ancestors(manifest, store), _MOST_INGREDIENTS):
        for name in ingredient.source_types:
            finding = _describe_ingredient(
                relation, ingredient, name, common, edited=manifest.is_edited
            )
            if finding.claim not in said:
                said.add(finding.claim)
                findings.append(finding)
    if not any(finding.speaks_for == POSITIVE_CLASS for finding in findings):
        return findings
    picture = _input_picture(manifest, store)
    # A photograph into which something was generated is no contradiction.
    return [
        replace(f, speaks_for=None) if f.speaks_for == "Real" else replace(f, from_picture=picture)
        for f in findings
    ]


def _input_picture(manifest: _Manifest, store: dict) -> str:
    """The ingredient, itself not generated, from which a generator made the picture, or ""."""
    chain = [manifest, *(one for _, one in itertools.islice(_ancestors(manifest, store), 10))]
    for generated in (one for one in chain if one.generator):
        for ingredient in generated.ingredients:
            made = store["manifests"].get(ingredient.get("active_manifest"))
            own = made is None or not _Manifest(made).generator
            if own and ingredient.get("relationship") in {"parentOf", "inputTo"}:
                return clean(f"C2PA ingredient {ingredient.get('title', '')}")
    return ""


def _with_generator(finding: Finding) -> Finding:
    """The same, with the generator's name in its claim."""
    if finding.code not in {Code.GENERATED, Code.COMPOSITE} or not finding.generator:
        return replace(finding, generator="")
    claim = f"{finding.claim} ({finding.generator})"
    return replace(finding, claim=claim, text=finding.text.replace(finding.claim, claim, 1))


def _describe_ingredient(
    relation: str, ingredient: _Manifest, name: str, common: Finding, *, edited: bool
) -> Finding:
    said_by = _RELATIONS.get(relation, "An ingredient of its C2PA manifest")
    common = replace(common, generator=ingredient.generator)
    finding = _with_generator(describe_source_type(name, said_by=said_by, common=common))
    if relation == "inputTo":
        # A model saw this picture; the file's own picture may be another one.
        return replace(finding, speaks_for=None, claim="")
    if not finding.claim or (relation == "parentOf" and not edited):
        return finding
    if relation == "componentOf":
        code = Code.COMPOSITE if finding.code is Code.GENERATED else finding.code
        claim = f"composed with a picture that was {finding.claim}"
        return replace(finding, code=code, claim=claim)
    return replace(finding, claim=f"edited from a picture that was {finding.claim}")


def _ancestors(manifest: _Manifest, store: dict) -> Iterator[tuple[str, _Manifest]]:
    """The manifests of the ingredients and of theirs, each once, nearest first."""
    seen = {store["active_manifest"]}
    waiting = [("", manifest)]
    while waiting:
        above, current = waiting.pop(0)
        for ingredient in current.ingredients:
            label = ingredient.get("active_manifest")
            if label in seen or label not in store["manifests"]:
                continue
            seen.add(label)
            relation = str(ingredient.get("relationship", ""))
            if relation == "componentOf" and current.is_its_only_ingredient:
                relation = "parentOf"
            # A part stays a part, however often it was edited before it was placed.
            relation = above if above in {"componentOf", "inputTo"} else relation
            waiting.append((relation, _Manifest(store["manifests"][label])))
            yield waiting[-1]
