"""Make archives that no unpacker should trust."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

from tests.preparation.material import image_bytes

GOOD = image_bytes(1)


def make_zip(path, entries, **options):
    """entries: (name or ZipInfo, data)."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def make_tar(path, members, *, mode="w"):
    """members: (TarInfo or name, data)."""
    path.write_bytes(tar_of(*members, mode=mode))
    return path


def zip_of(*entries, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    make_zip(buffer, entries, compression=method)
    return buffer.getvalue()


def tar_of(*members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


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


def damaged_tar_header():
    data = tar_of(("a.jpg", GOOD), ("b.jpg", GOOD))
    second = data.index(b"b.jpg")
    return put(data, (second + 148, b"\xff" * 8))[: second + 512]


def huge_gnu_name():
    name = (tar_member("a", tarfile.GNUTYPE_LONGNAME), b"a" * (2**20 + 1))
    return tar_of(("first.jpg", GOOD), name, ("a.jpg", GOOD))


def huge_pax_record():
    record = b"1100000 comment=".ljust(1_099_999, b"a") + b"\n"
    return tar_of((tar_member("a", tarfile.XHDTYPE), record), ("a.jpg", GOOD))


def size_of(repeats):
    return struct.pack("<L", len(GOOD) * repeats)


LINE = b"PK\x01\x02"
ONE = zip_of(("a.jpg", GOOD))
TWO = zip_of(("a.jpg", GOOD), ("b.jpg", GOOD))
FIFTY = zip_of(("a.jpg", GOOD * 50), method=zipfile.ZIP_DEFLATED)
GZ = tar_of(("a.jpg", GOOD), mode="w:gz")
NINE = zip_of(*((f"{i}.jpg", GOOD) for i in range(9)))
THREE_IN_TAR = tar_of(*((f"{i}.jpg", GOOD) for i in range(3)))
LARGE = image_bytes(1, size=(64, 64))
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
    "not an archive": (GOOD, "neither"),
    "zero bytes": (b"", "neither"),
    "gz bomb": (lambda: tar_of(("zeros.jpg", bytes(100 * 2**20)), mode="w:gz"), "100 times"),
    "endless tail": (lambda: gzip.compress(THREE_IN_TAR + bytes(100 * 2**20)), "100 times"),
    "truncated tar": (THREE_IN_TAR[: len(THREE_IN_TAR) // 6], "incomplete"),
    # Cut between two entries, where nothing but the missing end mark tells.
    "tar without end": (THREE_IN_TAR[: 512 + -(-len(GOOD) // 512) * 512], "incomplete"),
    "truncated gz": (lambda: tar_of(("a.jpg", LARGE), mode="w:gz")[:-900], "incomplete|neither"),
    "wrong gz checksum": (
        put(GZ, (len(GZ) - 8, struct.pack("<L", zlib.crc32(b"other")))),
        "damaged",
    ),
    "truncated xz": (lambda: tar_of(("a.jpg", LARGE), mode="w:xz")[:-60], "incomplete|neither"),
    "damaged tar header": (damaged_tar_header, "damaged|not whole"),
    "gzip of no tar": (gzip.compress(GOOD * 100), "neither"),
    "damaged first header before a zip": (
        lambda: b"?" + tar_of(("a.jpg", GOOD), ("inner.zip", ONE))[1:],
        "incomplete",
    ),
    "zeroed tar header": (
        put(THREE_IN_TAR, (THREE_IN_TAR.index(b"1.jpg"), bytes(512))),
        "0.jpg.*data follows its end mark",
    ),
    "joined tars": (THREE_IN_TAR * 2, "data follows"),
    "huge GNU name": (huge_gnu_name, "at most 1,048,576 bytes"),
    "huge pax record": (huge_pax_record, "at most 1,048,576 bytes"),
    "stub of gz": (lambda: tar_of(("a.jpg", GOOD), mode="w:gz")[:40], "incomplete"),
    "bzip2 entry": (
        lambda: zip_of(("a.jpg", GOOD), method=zipfile.ZIP_BZIP2),
        "a method that is not read here",
    ),
    "LZMA entry": (
        lambda: zip_of(("a.jpg", GOOD), method=zipfile.ZIP_LZMA),
        "a method that is not read here",
    ),
}
