"""Make archives that no unpacker should trust."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

from tests.preparation.material import image_bytes

GOOD = image_bytes(1)


def make_zip(path, entries, **options):
    """entries: (name or ZipInfo, data)."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def zip_of(*entries, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    make_zip(buffer, entries, compression=method)
    return buffer.getvalue()


def tar_of(name, data, *, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_member(name, *, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def put(data, *places):
    """The data with other bytes at some places: (position, bytes)."""
    changed = bytearray(data)
    for position, part in places:
        changed[position : position + len(part)] = part
    return bytes(changed)


def patched(path, find, replace):
    data = path.read_bytes()
    assert find in data
    path.write_bytes(data.replace(find, replace))


def wrong_checksum():
    return ONE.replace(GOOD[20:60], b"x" * 40)


def zip_bomb():
    return zip_of(("zeros.jpg", bytes(100 * 2**20)), method=zipfile.ZIP_DEFLATED)


def size_of(repeats):
    return struct.pack("<L", len(GOOD) * repeats)


LINE = b"PK\x01\x02"
ONE = zip_of(("a.jpg", GOOD))
TWO = zip_of(("a.jpg", GOOD), ("b.jpg", GOOD))
FIFTY = zip_of(("a.jpg", GOOD * 50), method=zipfile.ZIP_DEFLATED)
NINE = zip_of(*((f"{i}.jpg", GOOD) for i in range(9)))
# What an archive's bytes are, or what makes them, and what its refusal says.
REFUSED = {
    # The flag that says so, in the local header and in the table of contents.
    "encrypted": (put(ONE, (6, b"\1"), (ONE.rindex(LINE) + 8, b"\1")), "encrypted"),
    "wrong checksum": (wrong_checksum, "CRC"),
    "truncated zip": (NINE[:-200], "incomplete"),
    "cut inside": (NINE[:300] + NINE[700:], "damaged|overlap"),
    "lying size": (FIFTY.replace(size_of(50), struct.pack("<L", 10)), "damaged"),
    "lying size, stored": (ONE.replace(size_of(1), struct.pack("<L", 2**31)), "100 times"),
    "damaged deflate": (
        lambda: put(
            zip_of(("a.jpg", bytes(5000) + GOOD), method=zipfile.ZIP_DEFLATED), (36, b"\xff" * 24)
        ),
        "damaged",
    ),
    # Both lines of the table of contents point at the first file.
    "overlapping": (put(TWO, (TWO.rindex(LINE) + 42, bytes(4))), "overlap|differ"),
    "names disagree": (ONE.replace(b"a.jpg", b"b.jpg", 1), "differ"),
    "unknown method": (
        put(ONE, (8, b"M\0"), (ONE.rindex(LINE) + 10, b"M\0")),
        "a method that is not read here",
    ),
    "file and folder": (lambda: zip_of(("a", GOOD), ("a/b.jpg", GOOD)), "both a file and a folder"),
    "zip bomb": (zip_bomb, "100 times"),
    "many small bombs": (
        lambda: zip_of(
            *((f"{i}.jpg", bytes(10 * 2**20)) for i in range(10)), method=zipfile.ZIP_DEFLATED
        ),
        "100 times",
    ),
    "empty zip": (lambda: zip_of(), "no files"),
    "only folders": (lambda: zip_of(("a/", b""), ("b/", b"")), "no files"),
    "not an archive": (GOOD, "no zip archive"),
    "zero bytes": (b"", "no zip archive"),
    "tar": (lambda: tar_of("a.jpg", GOOD), "no zip archive.*pack other archives as zips"),
    "tar that ends with a zip": (lambda: tar_of("inner.zip", ONE), "no zip archive"),
    "gz": (lambda: tar_of("a.jpg", GOOD, mode="w:gz"), "no zip archive"),
    "bzip2 entry": (
        lambda: zip_of(("a.jpg", GOOD), method=zipfile.ZIP_BZIP2),
        "a method that is not read here",
    ),
    "LZMA entry": (
        lambda: zip_of(("a.jpg", GOOD), method=zipfile.ZIP_LZMA),
        "a method that is not read here",
    ),
}
