"""Say who may ask the service, and for how much.

Clients show keys, of which a file holds only the hashes: a line is a name and the SHA-256 of a key.
A key has 256 random bits, so that a slow hash, which protects passwords that people choose, would
add nothing. The limits run in the server's event loop, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import math
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.core.config import MAX_IMAGE_PIXELS
from real_vs_ai.core.errors import InputError, RealVsAIError
from real_vs_ai.core.files import atomic_write

MEGA = 10**6
# The weight of the newest request in the mean time of requests.
_NEWEST_SHARE = 0.2
_LONGEST_WAIT_SECONDS = 60
_REFUSAL_SECONDS = 0.3
_POLL_SECONDS = 0.05
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BYTES = 32
_PREFIX = "rva_"
_HOW_TO_ADD = "Make a key with: python ApiServer.py --keys api-keys.txt --new-key NAME"


@dataclass(frozen=True)
class Limits:
    """Bounds of one request and of all requests together; ApiServer.py has an option for one.

    Attributes:
        max_image_bytes: The largest image file.
        max_image_pixels: The largest image, width × height.
        max_images: The most images in one request.
        max_request_bytes: The largest body of a request.
        max_requests: The most requests that are received or answered at the same time.
        max_held_bytes: The most bytes of all bodies at the same time; at least one request's.
        max_client_requests: The most requests of one client among them, so that slow uploads of one
            leave places to the others.
        max_client_bytes: The most bytes of one client's bodies; at least one request's.
        receive_seconds: The time within which a request's body must have come.
    """

    max_image_bytes: int = 50 * MEGA
    max_image_pixels: int = MAX_IMAGE_PIXELS
    max_images: int = 100
    max_request_bytes: int = 200 * MEGA
    max_requests: int = 64
    max_held_bytes: int = 1000 * MEGA
    max_client_requests: int = 32
    max_client_bytes: int = 500 * MEGA
    receive_seconds: float = 60


class RequestError(RealVsAIError):
    """A refused request; becomes a JSON answer with this HTTP status, code and headers."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Admission:
    """Lets requests in as long as there is room, and none once the service is to end.

    Attributes:
        held_bytes: The bytes of the requests that are in.
        is_stopping: Whether the service is to end.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._mean_seconds = 1.0
        self._ends_at = math.inf
        self._running: set[asyncio.Timeout] = set()
        self._of_clients: Counter[str] = Counter()
        self._bytes_of_clients: Counter[str] = Counter()
        self.requests = 0
        self.held_bytes = 0

    @property
    def is_stopping(self) -> bool:
        return self._ends_at < math.inf

    @contextlib.asynccontextmanager
    async def request(self, *, size: int, client: str) -> AsyncIterator[None]:
        """Hold a place and `size` bytes while the block runs.

        Args:
            client: Who asks: a key's name, or an address.

        Raises:
            RequestError: There is no room now: status 429, with the seconds to wait. Or the service
                ends: status 503.
        """
        if self.is_stopping:
            raise stopping()
        self._check_room(size, client)
        self._hold(1, size, client)
        started = time.monotonic()
        try:
            async with self.time_limit(math.inf):
                yield
        except TimeoutError as error:
            raise stopping() from error
        finally:
            self._hold(-1, -size, client)
            self._mean_seconds += _NEWEST_SHARE * (time.monotonic() - started - self._mean_seconds)

    def _check_room(self, size: int, client: str) -> None:
        limits = self._limits
        requests, held = self._of_clients[client], self._bytes_of_clients[client]
        if requests >= limits.max_client_requests or held + size > limits.max_client_bytes:
            what = f"You have {requests} requests of {held:,} bytes under way, the most for one."
        elif self.requests >= limits.max_requests or self.held_bytes + size > limits.max_held_bytes:
            what = "The service is busy."
        else:
            return
        # By then about as much time has passed as a request takes.
        seconds = min(max(1, math.ceil(self._mean_seconds)), _LONGEST_WAIT_SECONDS)
        message = f"{what} Send the request again in {seconds} s."
        raise RequestError(429, "busy", message, **{"Retry-After": str(seconds)})

    def _hold(self, requests: int, size: int, client: str) -> None:
        self.requests += requests
        self.held_bytes += size
        self._of_clients[client] += requests
        self._bytes_of_clients[client] += size
        if not self._of_clients[client]:
            del self._of_clients[client], self._bytes_of_clients[client]

    @contextlib.asynccontextmanager
    async def time_limit(self, seconds: float) -> AsyncIterator[None]:
        """Interrupt the block after so many seconds, or when the service ends: TimeoutError."""
        now = asyncio.get_running_loop().time()
        # A refusal that begins when the service ends still gets out.
        latest = max(self._ends_at, now + _REFUSAL_SECONDS)
        async with asyncio.timeout_at(min(now + seconds, latest)) as timeout:
            self._running.add(timeout)
            try:
                yield
            finally:
                self._running.discard(timeout)

    async def stop(self, *, seconds: float) -> None:
        """Let nobody in any more; return when all have ended, interrupted after so many seconds."""
        self._ends_at = asyncio.get_running_loop().time() + seconds
        for timeout in self._running:
            timeout.reschedule(min(timeout.when() or math.inf, self._ends_at))
        while self._running:
            await asyncio.sleep(_POLL_SECONDS)


def stopping() -> RequestError:
    """The refusal of a service that ends."""
    message = "The service is stopping. Send the request again, to another one or later."
    return RequestError(503, "stopping", message, **{"Retry-After": "5"})


@dataclass(frozen=True)
class Keys:
    """The keys that open the service: the SHA-256 in hexadecimal of each, by its name."""

    digests: dict[str, str]

    def name_of(self, key: str) -> str:
        """The name of a key, "" if it is none; takes the same time whatever is wrong with it."""
        digest = _digest(key)
        matches = [n for n, known in self.digests.items() if hmac.compare_digest(digest, known)]
        return "".join(matches[:1])


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
        raise FileNotFoundError(f"Expected a file of keys at {path}, found none. {_HOW_TO_ADD}")
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
        raise InputError(f"Expected a key in {path}, found none. {_HOW_TO_ADD}")
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
        f"{_HOW_TO_ADD}"
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
