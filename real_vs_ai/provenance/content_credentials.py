"""Read content credentials: C2PA manifests, their seal, edit history and ingredients."""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.images import DECODER_ERRORS
from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.findings import Code, Finding, Seal, clean, describe_input
from real_vs_ai.provenance.labels import describe_source_type, name_generator, named_source_types
from real_vs_ai.provenance.seals import CheckedSeal, c2pa_context, check_seal
from real_vs_ai.provenance.trust_lists import trust_settings

_MOST_MANIFESTS = 200
_MOST_ACTIONS = 20
_MOST_INGREDIENTS = 10
# Actions that leave the picture what it was.
_NO_EDITS = frozenset({"created", "opened", "converted", "transcoded", "published", "repackaged"})
_RELATIONS = {
    "parentOf": "finding.parent",
    "componentOf": "finding.component",
    "inputTo": "finding.input",
}


def read_content_credentials(data: bytes) -> list[Finding]:
    """Findings of a file's C2PA manifest, its seal first; [] without a manifest.

    Raises:
        InputError: The list of trusted signers cannot be read.
    """
    # The library is native code: only files that carry a manifest store are given to it.
    if b"c2pa" not in data or b"jumb" not in data:
        return []
    # Each manifest of a picture that was used is checked, too, which takes about 30 ms.
    if data.count(b"jumdc2ma") > _MOST_MANIFESTS:
        return [_unreadable("seal.too_many")]
    context = c2pa_context(trust_settings())
    if context is None:
        return [_unreadable("seal.not_read")]
    import c2pa

    try:
        with c2pa.Reader(None, io.BytesIO(data), context=context) as reader:
            state = reader.get_validation_state() or "Invalid"
            store = json.loads(reader.json())
            checked = check_seal(store, state=state, data=data, reader=reader)
        return _describe_store(store, checked)
    except (c2pa.C2paError, *DECODER_ERRORS):
        return [_unreadable("seal.damaged")]


def _unreadable(key: str) -> Finding:
    forgery = Message("forgery.unreadable")
    return Finding(Code.CREDENTIALS, "C2PA", Message(key), forgery=forgery, seal=Seal.UNREADABLE)


@dataclass(frozen=True)
class _Manifest:
    """One manifest of a store, as the library reports it."""

    content: dict[str, Any]

    @functools.cached_property
    def agents(self) -> str:
        """The parts that name tools and source types."""
        claim = [self.content.get(key) for key in ("claim_generator", "claim_generator_info")]
        return json.dumps([*claim, *self.action_entries])

    @functools.cached_property
    def action_entries(self) -> list[dict[str, Any]]:
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
    def ingredients(self) -> list[dict[str, Any]]:
        return self.content.get("ingredients", [])[:_MOST_INGREDIENTS]


def _describe_store(store: dict[str, Any], checked: CheckedSeal) -> list[Finding]:
    manifest = _Manifest(store["manifests"][store["active_manifest"]])
    finding = Finding(
        Code.CREDENTIALS,
        "C2PA",
        checked.text,
        forgery=checked.forgery,
        generator=manifest.generator,
        seal=checked.seal,
        signer=manifest.signer,
        known_by=checked.known_by,
        expired_on=checked.expired_on,
        failures=checked.failures,
        actions=manifest.actions,
        field="C2PA",
        ingredients=tuple(
            clean(f"{one.get('relationship', '')} {one.get('title', '')}")
            for one in manifest.ingredients
        ),
    )
    # A manifest that fits another file says nothing about this one's origin.
    unbroken = checked.seal.is_unbroken
    return [finding, *(_describe_origins(manifest, store, finding) if unbroken else [])]


def _describe_origins(manifest: _Manifest, store: dict[str, Any], seal: Finding) -> list[Finding]:
    """What the manifest and its ingredients' manifests say of where the picture comes from."""
    common = replace(seal, actions=(), ingredients=())
    said_by = Message("finding.manifest")
    findings = [
        describe_source_type(name, said_by=said_by, common=common) for name in manifest.source_types
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
    findings = [replace(f, speaks_for=None) if f.speaks_for == "Real" else f for f in findings]
    return [*findings, *describe_input(picture, kind="C2PA", field="C2PA", seal=seal.seal)]


def _input_picture(manifest: _Manifest, store: dict[str, Any]) -> str:
    """The ingredient, itself not generated, from which a generator made the picture, or ""."""
    chain = [manifest, *(one for _, one in itertools.islice(_ancestors(manifest, store), 10))]
    for generated in (one for one in chain if one.generator):
        for ingredient in generated.ingredients:
            made = store["manifests"].get(ingredient.get("active_manifest"))
            own = made is None or not _Manifest(made).generator
            if own and ingredient.get("relationship") in {"parentOf", "inputTo"}:
                return clean(f"C2PA ingredient {ingredient.get('title', '')}")
    return ""


def _describe_ingredient(
    relation: str, ingredient: _Manifest, name: str, common: Finding, *, edited: bool
) -> Finding:
    said_by = Message(_RELATIONS.get(relation, "finding.ingredient"))
    common = replace(common, generator=ingredient.generator)
    finding = describe_source_type(name, said_by=said_by, common=common)
    if relation == "inputTo":
        # A model saw this picture; the file's own picture may be another one.
        return replace(finding, speaks_for=None, claim="")
    if not finding.claim or (relation == "parentOf" and not edited):
        return finding
    if relation == "componentOf":
        code = Code.COMPOSITE if finding.code is Code.GENERATED else finding.code
        return replace(finding, code=code, claim=Message("claim.composed", claim=finding.claim))
    return replace(finding, claim=Message("claim.edited", claim=finding.claim))


def _ancestors(manifest: _Manifest, store: dict[str, Any]) -> Iterator[tuple[str, _Manifest]]:
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
