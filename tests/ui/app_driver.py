"""Drive the app by Streamlit's AppTest as a user would, and read its pages."""

from __future__ import annotations

import sys

from app_site import APP
from streamlit.testing.v1 import AppTest

TIMEOUT_S = 180


def start(*arguments: object) -> AppTest:
    sys.argv[1:] = [str(argument) for argument in arguments]
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S).run()
    assert not app.exception
    return app


def upload(app: AppTest, files: dict[str, bytes]) -> AppTest:
    app.file_uploader[0].set_value([(name, data, "image/png") for name, data in files.items()])
    app.run()
    assert not app.exception
    return app


def verdicts(app: AppTest) -> list[str]:
    """The cards' headings, in order."""
    return [m.value for m in app.markdown if m.value.startswith("## ")]


def shown_texts(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.text]
    return "\n".join(str(part.value) for part in parts)


def button(app: AppTest, label: str):
    return next(b for b in app.button if b.label == label)
