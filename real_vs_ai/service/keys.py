"""Create and check the keys of clients; a file holds only their hashes.

A line of the file is a name and the SHA-256 of a key. A key has 256 random bits, so that a slow
hash, which protects passwords that people choose, would add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.errors import InputError
from real_vs_ai.files import atomic_write

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BYTES = 32
_PREFIX = "rva_"


@dataclass(frozen=True)
class Keys:
    """The keys that open the service: the SHA-256 in hexadecimal of each, by its name."""

    digests: dict[str, str]

    def allows(self, key: str) -> bool:
        """Whether this is one of the keys; takes the same time whatever is wrong with it."""
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self.digests.values()]
        return any(matches)


def add_key(path: Path, *, name: str) -> str:
    """Make a key and add its hash to the file, which only its owner may read.

    Returns:
        The key, which is stored nowhere.

    Raises:
        InputError: The name is taken, or of other characters than letters, digits and `._-`.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"Expected a name of letters, digits and ._- for the key, found {name!r}.")
    digests = dict(read_keys(path).digests) if path.exists() else {}
    if name in digests:
        raise InputError(
            f"{path} already has a key named {name!r}. Choose another name, or remove its line."
        )
    key = _PREFIX + secrets.token_urlsafe(_BYTES)
    digests[name] = _digest(key)
    with atomic_write(path) as staging:
        staging.touch(mode=0o600)
        staging.write_text("".join(f"{n} {d}\n" for n, d in digests.items()), encoding="utf-8")
    return key


def read_keys(path: Path) -> Keys:
    """The keys of a file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file has a damaged line, or no key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file of keys at {path}, found none. {_how_to_add()}")
    digests = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, digest = line.strip().partition(" ")
        if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest) or name in digests:
            raise InputError(
                f"Expected a name and a SHA-256 at line {number} of {path}, each name once."
            )
        digests[name] = digest
    if not digests:
        raise InputError(f"Expected a key in {path}, found none. {_how_to_add()}")
    return Keys(digests)


def is_local(address: str) -> bool:
    """Whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def required_keys(path: Path | None, *, address: str) -> Keys | None:
    """The keys that a service at this address asks for; None where it asks for none.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is damaged, or others can reach the address and there are no keys.
    """
    if path is not None:
        return read_keys(path)
    if is_local(address):
        return None
    raise InputError(
        f"Expected --keys FILE to listen on {address}, which other machines may reach, found none. "
        f"{_how_to_add()}"
    )


def _how_to_add() -> str:
    return "Make a key with: python ApiServer.py --keys api-keys.txt --new-key NAME"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
