"""Keep the lists of trusted signers, and tell which list knows the issuer of a certificate.

The lists lie in `trust/`, with source, date and licence in `trust/lists.json`; newer ones take
their place by `python -m real_vs_ai.provenance.refresh`.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from real_vs_ai.core.errors import InputError, describe_error
from real_vs_ai.core.files import read_json

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# The environment variable that names a PEM file of certificates of signers to trust as well.
TRUST_LIST = "REAL_VS_AI_TRUST_LIST"
FOLDER = Path(__file__).with_name("trust")
INDEX = "lists.json"
SINGLE_SIGNERS, TIME_STAMPS, USES = "single_signers", "time_stamps", "uses"
# For whom a list vouches, in the words of the C2PA library.
_VOUCHES_FOR = {
    "signers": ("manifest",),
    SINGLE_SIGNERS: ("manifest",),
    TIME_STAMPS: ("tsa",),
    "signers_and_time_stamps": ("manifest", "tsa"),
}
_LARGEST_LIST = 8 * 2**20
# A chain has three or four; a hostile file could hold thousands.
_MOST_CERTIFICATES = 40
_MOST_PLACES = 4_000
_LONGEST_CERTIFICATE = 8_192


@dataclass(frozen=True)
class TrustList:
    """One file of a list.

    Attributes:
        name: Whose list it is, for programs: "c2pa", "cai" or "own".
        holds: "signers", "time_stamps", "signers_and_time_stamps", "single_signers" or "uses".
    """

    name: str
    holds: str
    path: Path


def read_trust_list() -> str:
    """The PEM certificates that the environment adds to the lists; "" if it names no file.

    Raises:
        InputError: The file that it names holds none, or cannot be read.
    """
    return "".join(_read_text(one.path) for one in _own_list())


def _own_list() -> list[TrustList]:
    path = os.environ.get(TRUST_LIST)
    if not path:
        return []
    try:
        _read_certificates(Path(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected {TRUST_LIST} to name a PEM file of certificates, found {path}: "
            f"{describe_error(error)}."
        ) from error
    return [TrustList("own", "signers_and_time_stamps", Path(path))]


def trust_settings() -> str:
    """What the C2PA library takes as its settings `trust`, in JSON.

    Raises:
        InputError: The list that the environment adds cannot be read.
    """
    return _settings((*_known_lists(), *_own_list()))


@functools.lru_cache(maxsize=4)
def _settings(lists: tuple[TrustList, ...]) -> str:
    anchors = [
        {
            "trust_anchors": "" if one.holds == SINGLE_SIGNERS else _read_text(one.path),
            "allowed_list": _read_text(one.path) if one.holds == SINGLE_SIGNERS else "",
            "trust_uri": TIME_STAMPS if one.holds == TIME_STAMPS else one.name,
            "trust_kind": kind,
        }
        for one in lists
        for kind in _VOUCHES_FOR.get(one.holds, ())
    ]
    uses = "".join(_read_text(one.path) for one in lists if one.holds == USES)
    return json.dumps({"anchors": anchors, "trust_config": uses})


def find_signer(store: bytes, *, serial_number: str) -> list[Certificate]:
    """The certificates of a manifest store that have this serial number; there may be forgeries.

    Args:
        store: The C2PA manifest store, in one piece.
        serial_number: In decimal digits.
    """
    certificates = _certificates_in(store)
    return [one for one in certificates if str(one.serial_number) == serial_number]


def find_issuer_list(signer: Certificate, store: bytes) -> str:
    """The list that knows who issued a certificate, at the end of its validity: "c2pa", or "".

    Args:
        store: Holds the certificates between the signer's and a list's.
    """
    from cryptography import x509
    from cryptography.x509 import verification

    policy = verification.ExtensionPolicy
    issuers = policy.permit_all().require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
    )
    between = _certificates_in(store)
    for one in [*_known_lists(), *_own_list()]:
        if one.holds == SINGLE_SIGNERS:
            if signer in _read_certificates(one.path):
                return one.name
            continue
        if "manifest" not in _VOUCHES_FOR.get(one.holds, ()):
            continue
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store(_read_certificates(one.path)))
            .time(signer.not_valid_after_utc - timedelta(seconds=1))
            .extension_policies(ca_policy=issuers, ee_policy=policy.permit_all())
            .build_client_verifier()
        )
        try:
            verifier.verify(signer, between)
            return one.name
        except (verification.VerificationError, ValueError):
            continue
    return ""


def _certificates_in(store: bytes) -> list[Certificate]:
    """The certificates in DER that stand anywhere in these bytes, each once."""
    from cryptography import x509

    certificates: dict[Certificate, None] = {}
    start = -1
    for _ in range(_MOST_PLACES):
        start = store.find(b"\x30\x82", start + 1)
        if start < 0 or len(certificates) == _MOST_CERTIFICATES:
            break
        length = int.from_bytes(store[start + 2 : start + 4], "big") + 4
        # A certificate begins with what was signed, which is a sequence, too.
        if length > _LONGEST_CERTIFICATE or store[start + 4 : start + 6] != b"\x30\x82":
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                certificates[x509.load_der_x509_certificate(store[start : start + length])] = None
        except ValueError:
            continue
    return list(certificates)


def _known_lists() -> tuple[TrustList, ...]:
    return _lists_of(FOLDER)


@functools.cache
def _lists_of(folder: Path) -> tuple[TrustList, ...]:
    index = read_json(folder / INDEX)
    return tuple(TrustList(one["list"], one["holds"], folder / name) for name, one in index.items())


@functools.cache
def _read_text(path: Path) -> str:
    # Each list may end without an end of line.
    return path.read_text(encoding="utf-8", errors="replace") + "\n"


@functools.cache
def _read_certificates(path: Path) -> tuple[Certificate, ...]:
    """The certificates of a PEM file.

    Raises:
        OSError: It cannot be read.
        InputError: It holds other things, too, or is too large.
        ValueError: It holds none, or a damaged one.
    """
    return parse_certificates(path.read_bytes())


def parse_certificates(data: bytes) -> tuple[Certificate, ...]:
    """The certificates of a text in PEM.

    Raises:
        InputError: It holds none, a damaged one or other things, too, or is too large.
    """
    from cryptography import x509

    if len(data) > _LARGEST_LIST:
        raise InputError(f"it is larger than {_LARGEST_LIST // 2**20} MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificates = tuple(x509.load_pem_x509_certificates(data))
    except ValueError as error:
        raise InputError("it holds no whole certificates in PEM") from error
    if len(certificates) != data.count(b"-----BEGIN"):
        raise InputError("it holds other things than certificates")
    return certificates
