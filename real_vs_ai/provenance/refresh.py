"""Replace the lists of trusted signers by newer ones that you downloaded; nothing is fetched.

    python -m real_vs_ai.provenance.refresh C2PA-TRUST-LIST.pem C2PA-TSA-TRUST-LIST.pem

`trust/lists.json` names the sources. A damaged file changes nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.errors import InputError, describe_error
from real_vs_ai.core.files import read_json, write_bytes, write_json
from real_vs_ai.provenance import trust_lists

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_USE = re.compile(r"^\d+(?:\.\d+){3,}\s*$", re.M)


def refresh(files: Sequence[Path]) -> Iterator[str]:
    """Put newer lists in the place of those of the same names; all are checked before the first.

    Returns:
        What changed, one line for each file.

    Raises:
        InputError: A file has another name, cannot be read or is damaged.
    """
    folder = trust_lists.FOLDER
    index = read_json(folder / trust_lists.INDEX)
    newer = {path.name: _read_checked(path, index) for path in files}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for name, content in newer.items():
        before = (folder / name).read_bytes()
        write_bytes(folder / name, content)
        index[name]["date"] = today
        write_json(folder / trust_lists.INDEX, index)
        yield f"{name}: {_count(before)} before, {_count(content)} now"


def _read_checked(path: Path, index: dict[str, Any]) -> bytes:
    """The content of a newer list.

    Raises:
        InputError: It cannot take the place of one that is there.
    """
    if path.name not in index:
        raise InputError(
            f"Expected a file called {', '.join(index)}, found {path.name}. Rename it as "
            f"{trust_lists.FOLDER / trust_lists.INDEX} names it beside its source."
        )
    holds = index[path.name]["holds"]
    try:
        content = path.read_bytes()
        if holds == trust_lists.USES:
            if not _USE.search(content.decode("utf-8")):
                raise InputError("it names no use of a certificate")
            return content
        certificates = trust_lists.parse_certificates(content)
        if holds != trust_lists.SINGLE_SIGNERS and not all(map(_may_issue, certificates)):
            raise InputError("a certificate in it may not issue others")
        return content
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected a whole list at {path}: {describe_error(error)}. Download it again; "
            "nothing was changed."
        ) from error


def _may_issue(certificate: Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _count(content: bytes) -> str:
    certificates = content.count(b"-----BEGIN CERTIFICATE-----")
    if certificates:
        return f"{certificates} certificates"
    return f"{len(_USE.findall(content.decode('utf-8', 'replace')))} uses"


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Refresh the lists."""
    parser = make_parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a downloaded list")
    for line in refresh(parser.parse_args(argv).files):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
