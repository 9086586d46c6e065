"""Make archives that no unpacker should trust, each by a function of its own."""

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
    with tarfile.open(path, mode) as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_member(name, *, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patched(path, find, replace, *, count=-1):
    data = path.read_bytes()
    assert find in data
    path.write_bytes(data.replace(find, replace, count))
    return path


def encrypted(path):
    make_zip(path, [("a.jpg", GOOD)])
    # The flag that says so, in the local header and in the table of contents.
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def wrong_checksum(path):
    make_zip(path, [("a.jpg", GOOD)])
    patched(path, GOOD[20:60], b"x" * 40)


def truncated_zip(path):
    make_zip(path, [(f"{i}.jpg", GOOD) for i in range(9)])
    path.write_bytes(path.read_bytes()[:-200])


def cut_inside(path):
    make_zip(path, [(f"{i}.jpg", GOOD) for i in range(9)])
    data = path.read_bytes()
    path.write_bytes(data[:300] + data[700:])


def lying_size(path):
    make_zip(path, [("a.jpg", GOOD * 50)], compression=zipfile.ZIP_DEFLATED)
    size = struct.pack("<L", len(GOOD) * 50)
    patched(path, size, struct.pack("<L", 10))


def lying_size_stored(path):
    make_zip(path, [("a.jpg", GOOD)])
    size = struct.pack("<L", len(GOOD))
    patched(path, size, struct.pack("<L", 2**31))


def damaged_deflate(path):
    make_zip(path, [("a.jpg", bytes(5000) + GOOD)], compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[36:60] = b"\xff" * 24
    path.write_bytes(data)


def overlapping(path):
    make_zip(path, [("a.jpg", GOOD), ("b.jpg", GOOD)])
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    # Both lines of the table of contents now point at the first file.
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(data)


def names_disagree(path):
    make_zip(path, [("aaaa.jpg", GOOD)])
    patched(path, b"aaaa.jpg", b"bbbb.jpg", count=1)


def unknown_method(path):
    make_zip(path, [("a.jpg", GOOD)])
    data = bytearray(path.read_bytes())
    data[8:10] = struct.pack("<H", 77)
    position = data.rindex(b"PK\x01\x02")
    data[position + 10 : position + 12] = struct.pack("<H", 77)
    path.write_bytes(data)


def file_and_folder(path):
    make_zip(path, [("a", GOOD), ("a/b.jpg", GOOD)])


def zip_bomb(path):
    make_zip(path, [("zeros.jpg", bytes(100 * 2**20))], compression=zipfile.ZIP_DEFLATED)


def many_small_bombs(path):
    entries = [(f"{i}.jpg", bytes(10 * 2**20)) for i in range(10)]
    make_zip(path, entries, compression=zipfile.ZIP_DEFLATED)


def empty_zip(path):
    make_zip(path, [])


def only_folders(path):
    make_zip(path, [("a/", b""), ("b/", b"")])


def not_an_archive(path):
    path.write_bytes(GOOD)


def zero_bytes(path):
    path.write_bytes(b"")


def gz_bomb(path):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("zeros.jpg")
        info.size = 100 * 2**20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    path.write_bytes(gzip.compress(tar.getvalue()))


def endless_tail(path):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(GOOD)
        archive.addfile(info, io.BytesIO(GOOD))
    path.write_bytes(gzip.compress(tar.getvalue() + bytes(100 * 2**20)))


def truncated_tar(path):
    make_tar(path, [(f"{i}.jpg", GOOD * 30) for i in range(3)])
    path.write_bytes(path.read_bytes()[: len(GOOD) * 50])


def tar_without_end(path):
    make_tar(path, [("a.jpg", GOOD)])
    # Cut between two entries, where nothing but the missing end mark tells.
    path.write_bytes(path.read_bytes()[: 512 + -(-len(GOOD) // 512) * 512])


def truncated_gz(path):
    make_tar(path, [(f"{i}.jpg", image_bytes(i, size=(64, 64))) for i in range(3)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:-900])


def wrong_gz_checksum(path):
    make_tar(path, [("a.jpg", GOOD)], mode="w:gz")
    data = path.read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<L", zlib.crc32(b"other")) + data[-4:])


def truncated_xz(path):
    make_tar(path, [("a.jpg", image_bytes(1, size=(64, 64)))], mode="w:xz")
    path.write_bytes(path.read_bytes()[:-60])


def damaged_tar_header(path):
    make_tar(path, [("a.jpg", GOOD), ("b.jpg", GOOD)])
    data = bytearray(path.read_bytes())
    second = data.index(b"b.jpg")
    data[second + 148 : second + 156] = b"\xff" * 8
    path.write_bytes(data[: second + 512])


def damaged_first_header_before_a_zip(path):
    make_zip(path, [("inner.jpg", GOOD)])
    make_tar(path, [("a.jpg", GOOD), ("inner.zip", path.read_bytes())])
    path.write_bytes(b"?" + path.read_bytes()[1:])


def zeroed_tar_header(path):
    make_tar(path, [(f"{i}.jpg", GOOD) for i in range(3)])
    data = bytearray(path.read_bytes())
    second = data.index(b"1.jpg")
    data[second : second + 512] = bytes(512)
    path.write_bytes(data)


def joined_tars(path):
    make_tar(path, [("a.jpg", GOOD)])
    path.write_bytes(path.read_bytes() * 2)


def huge_gnu_name(path):
    name = (tar_member("a", tarfile.GNUTYPE_LONGNAME), b"a" * (2**20 + 1))
    make_tar(path, [("first.jpg", GOOD), name, ("a.jpg", GOOD)])


def huge_pax_record(path):
    record = b"1100000 comment=".ljust(1_099_999, b"a") + b"\n"
    make_tar(path, [(tar_member("a", tarfile.XHDTYPE), record), ("a.jpg", GOOD)])


def stub_of_gz(path):
    make_tar(path, [("a.jpg", GOOD)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:40])


def bzip2_entry(path):
    make_zip(path, [("a.jpg", GOOD)], compression=zipfile.ZIP_BZIP2)


def lzma_entry(path):
    make_zip(path, [("a.jpg", GOOD)], compression=zipfile.ZIP_LZMA)


def gzip_of_no_tar(path):
    path.write_bytes(gzip.compress(GOOD * 100))


REFUSED = {
    encrypted: "encrypted",
    wrong_checksum: "CRC",
    truncated_zip: "incomplete",
    cut_inside: "damaged|overlap",
    lying_size: "damaged",
    lying_size_stored: "100 times",
    damaged_deflate: "damaged",
    overlapping: "overlap|differ",
    names_disagree: "differ",
    unknown_method: "a method that is not read here",
    file_and_folder: "both a file and a folder",
    zip_bomb: "100 times",
    many_small_bombs: "100 times",
    empty_zip: "no files",
    only_folders: "no files",
    not_an_archive: "neither",
    zero_bytes: "neither",
    gz_bomb: "100 times",
    endless_tail: "100 times",
    truncated_tar: "incomplete",
    tar_without_end: "incomplete",
    truncated_gz: "incomplete|neither",
    wrong_gz_checksum: "damaged",
    truncated_xz: "incomplete|neither",
    damaged_tar_header: "damaged|not whole",
    gzip_of_no_tar: "neither",
    damaged_first_header_before_a_zip: "incomplete",
    zeroed_tar_header: "0.jpg.*data follows its end mark",
    joined_tars: "data follows",
    huge_gnu_name: "at most 1,048,576 bytes",
    huge_pax_record: "at most 1,048,576 bytes",
    stub_of_gz: "incomplete",
    bzip2_entry: "a method that is not read here",
    lzma_entry: "a method that is not read here",
}
