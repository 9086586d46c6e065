"""The page shows a file's metadata as a table, and the place only on request (AppTest)."""

from __future__ import annotations

import pytest
from app_driver import start, upload
from app_site import RED, encode
from PIL import ExifTags, Image

pytestmark = pytest.mark.usefixtures("surroundings")


def photograph() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "**Jane**"
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef], place[ExifTags.GPS.GPSLatitude] = "N", (51, 30, 36)
    place[ExifTags.GPS.GPSLongitudeRef], place[ExifTags.GPS.GPSLongitude] = "E", (0, 6, 0)
    return encode(Image.new("RGB", (64, 64), RED), "JPEG", exif=exif)


def test_metadata_are_shown_as_text_and_the_place_after_a_click(models):
    app = upload(start("--models-dir", models), {"red.jpg": photograph()})
    tab = next(tab for tab in app.tabs if "file" in tab.label)
    app.session_state[f"details {[tab.label for tab in app.tabs]}"] = tab.label
    app.run()
    assert not app.exception
    (table,) = app.dataframe
    assert [*table.value["Value"]] == ["**Jane**"]
    app.toggle[0].set_value(True).run()
    assert not app.exception
    assert "51.51000, 0.10000" in [*app.dataframe[1].value["Value"]]
