"""Sign pictures with C2PA manifests, by certificates made for the occasion."""

from __future__ import annotations

import datetime
import io
import json
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai.core.images import register_heif
from tests.serving.trivial_model import encode, uniform_image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MIME_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "HEIF": "image/heic",
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
}


class Authority:
    """A signer whose certificates are issued by a root of its own."""

    def __init__(self, *, use: str = "1.3.6.1.5.5.7.3.4"):
        """Make the keys and certificates.

        Args:
            use: What the signer's certificate is made for; the default is e-mail protection.
        """
        from cryptography.hazmat.primitives.asymmetric import ec

        self.root_key, self.key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.use = use
        # A root that has issued certificates that have expired since.
        self.root = self._certificate("Test root", self.root_key, days_ago=500, valid=3000)
        self.leaf = self._certificate("Test signer", self.key, days_ago=1)

    @property
    def root_pem(self) -> str:
        return _encoded(self.root, "PEM").decode()

    @property
    def signer_pem(self) -> str:
        return _encoded(self.leaf, "PEM").decode()

    @cache  # noqa: B019 (one authority in a test run)
    def expired(self) -> bytes:
        """The leaf's certificate as it would be, had it expired; as long as the other, in DER."""
        length = len(_encoded(self.leaf, "DER"))
        while True:
            found = _encoded(self._certificate("Test signer", self.key, days_ago=400), "DER")
            # A signature's length varies by a byte or two.
            if len(found) == length:
                return found

    def sign(
        self,
        manifest: dict,
        *,
        file_format: str = "JPEG",
        pixels: np.ndarray | None = None,
        expired: bool = False,
        ingredients: Sequence[tuple[dict, bytes]] = (),
    ) -> bytes:
        """A signed picture.

        The library refuses to sign with an expired certificate: the signature is made over one
        that is put in the valid one's place, in what is signed and in the file.
        """
        import c2pa
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        valid = _encoded(self.leaf, "DER")
        used = self.expired() if expired else valid

        def sign_bytes(data: bytes) -> bytes:
            signature = self.key.sign(data.replace(valid, used), ec.ECDSA(hashes.SHA256()))
            return b"".join(n.to_bytes(32, "big") for n in utils.decode_dss_signature(signature))

        chain = (_encoded(self.leaf, "PEM") + _encoded(self.root, "PEM")).decode()
        signer = c2pa.Signer.from_callback(sign_bytes, c2pa.C2paSigningAlg.ES256, chain)
        settings = c2pa.Settings.from_dict({"verify": {"verify_after_sign": False}})
        register_heif()
        source = encode(uniform_image(120) if pixels is None else pixels, file_format)
        signed = io.BytesIO()
        with c2pa.Builder(manifest, context=c2pa.Context(settings)) as builder:
            for description, data in ingredients:
                builder.add_ingredient(description, "image/jpeg", io.BytesIO(data))
            builder.sign(signer, MIME_TYPES[file_format], io.BytesIO(source), signed)
        data = signed.getvalue().replace(valid, used)
        return _with_checksums(data) if file_format == "PNG" else data

    def _certificate(self, subject: str, key, *, days_ago: int, valid: int = 30):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        authority = subject == "Test root"
        start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
        root_public = self.root_key.public_key()
        unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = x509.KeyUsage(
            digital_signature=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
            **dict.fromkeys(unused, False),
        )
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_public)
        builder = (
            x509.CertificateBuilder(_name("Test root"), _name(subject), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=valid))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
            .add_extension(identifier, False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(usage, True)
        )
        if not authority:
            uses = x509.ExtendedKeyUsage([x509.ObjectIdentifier(self.use)])
            builder = builder.add_extension(uses, False)
        return builder.sign(self.root_key, hashes.SHA256())


def manifest_of(
    source_type: str = "trainedAlgorithmicMedia",
    *,
    agent: str = "Imaginary Painter",
    action: str = "c2pa.created",
    more: Sequence[dict] = (),
) -> dict:
    """A manifest with one action that names a source type, and more actions after it."""
    first = {
        "action": action,
        "softwareAgent": {"name": agent},
        "digitalSourceType": SOURCE_TYPES + source_type,
    }
    return {
        "claim_generator_info": [{"name": "Test program", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [first, *more]}}],
    }


def make_authority(**options: str) -> Authority:
    for package in ("c2pa", "cryptography"):
        pytest.importorskip(package)
    return Authority(**options)


def write_lists(folder: Path, **contents: str) -> None:
    """Write a folder of trust lists, to stand in for the package's.

    Args:
        contents: The text of each list by what it holds: "signers", "single_signers", "uses", …
    """
    sources = {"source": "the tests", "date": "2020-01-01", "licence": "none"}
    index = {}
    for holds, text in contents.items():
        (folder / f"{holds}.pem").write_text(text, encoding="utf-8")
        index[f"{holds}.pem"] = {"list": "c2pa", "holds": holds, **sources}
    (folder / "lists.json").write_text(json.dumps(index), encoding="utf-8")


def _name(text: str):
    from cryptography import x509

    names = {x509.oid.NameOID.COMMON_NAME: text, x509.oid.NameOID.ORGANIZATION_NAME: "Tests"}
    return x509.Name([x509.NameAttribute(*item) for item in names.items()])


def _encoded(certificate, encoding: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(getattr(Encoding, encoding))


def _with_checksums(png: bytes) -> bytes:
    """The same PNG, with the checksum of every chunk as its content demands."""
    parts, position = [png[:8]], 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        content = png[position + 4 : position + 8 + length]
        parts += [png[position : position + 4], content, struct.pack(">I", zlib.crc32(content))]
        position += length + 12
    return b"".join(parts)
