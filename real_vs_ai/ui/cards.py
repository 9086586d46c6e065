"""Show a checked image as a card: the conclusion, the evidence behind it, and what to do next."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import streamlit as st

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.serving.conclusion import Conclusion, ConclusionCode
from real_vs_ai.ui.checking import MOST_RATIO, Card
from real_vs_ai.ui.image_input import Example
from real_vs_ai.ui.wording import as_markdown, heading, visible

_LOG = logging.getLogger(__name__)
# In pixels; a narrow page shows less. With these a card fits on a phone's screen.
_PICTURE_HEIGHT, _SMALL_PICTURE_HEIGHT = 220, 180
# The pages where one uploads a picture oneself: a link to them sends nothing.
_SEARCHES = {
    "Google Lens": "https://lens.google.com/",
    "TinEye": "https://tineye.com/",
    "Bing": "https://www.bing.com/visualsearch",
    "Yandex": "https://yandex.com/images/",
}
_CREDENTIALS = "https://contentcredentials.org/verify"
_NOTHING_SAID = "Nothing about its origin, like most pictures from the web."


def show_card(judged: Card, *, example: Example | None, small: bool = False) -> None:
    """Show conclusion, picture, evidence and next steps in the current container.

    An error in drawing is shown in the card and logged; other cards are drawn all the same.

    Args:
        example: What the picture is, when it is one of the app's examples.
        small: One card of many: without the next steps, which its dialog shows.
    """
    answer, conclusion = judged.answer, judged.conclusion
    with _keep_errors_in_card(answer.name):
        st.markdown(f"## {heading(conclusion)}")
        if judged.verdict is None:
            st.text(visible(answer.name))
            st.text(conclusion.from_model)
        else:
            left, right = (st.container(), st.container()) if small else st.columns([2, 3])
            with left:
                show_picture(judged, height=_SMALL_PICTURE_HEIGHT if small else _PICTURE_HEIGHT)
            with right:
                _show_evidence(conclusion)
                if example:
                    _show_truth(judged, example)
                st.caption(_file_line(judged))
        if not small:
            _show_next_steps(conclusion)


@contextlib.contextmanager
def _keep_errors_in_card(name: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        _LOG.exception("A card cannot be drawn.")
        st.error(
            f"The result for {as_markdown(visible(name))} cannot be shown. The app's log says why."
        )


def show_picture(judged: Card, *, height: int) -> None:
    """The upright image, about as high as this in pixels, or twice as wide."""
    ratio = max(1 / MOST_RATIO, judged.answer.width / judged.answer.height)
    st.image(
        judged.preview,
        alt=f"The uploaded image {visible(judged.answer.name)}",
        width=round(height * min(2.0, ratio)),
    )


def _show_evidence(conclusion: Conclusion) -> None:
    """The two lines of evidence, apart."""
    for title, icon, text in (
        ("What the file says", "fingerprint", conclusion.from_file or _NOTHING_SAID),
        ("What the model sees", "visibility", conclusion.from_model),
    ):
        st.markdown(f":material/{icon}: **{title}**  \n{as_markdown(text, longest=1_000)}")


def _show_truth(judged: Card, example: Example) -> None:
    label = judged.verdict.label
    if label == UNCERTAIN:
        outcome = "the model gives no answer"
    else:
        outcome = "the model is right" if label == example.label else "the model is wrong"
    st.markdown(f":material/school: {example.caption} Here {outcome}.")


def _file_line(judged: Card) -> str:
    """Name, size and format, and what was done to the picture."""
    answer = judged.answer
    told = [
        f"{as_markdown(answer.name)} · {answer.width} × {answer.height} pixels, "
        f"{as_markdown(answer.format)}.",
        *answer.notes,
    ]
    if judged.same_as:
        told.append(f"Same content as {as_markdown(judged.same_as)}.")
    return " ".join(told)


def _show_next_steps(conclusion: Conclusion) -> None:
    if not conclusion.next_steps:
        return
    lines = [f"- {as_markdown(step)}" for step in conclusion.next_steps]
    if conclusion.code is not ConclusionCode.UNREADABLE:
        links = " · ".join(f"[{name}]({address})" for name, address in _SEARCHES.items())
        lines.append(
            f"- Search for it: {links}. Read its content credentials: [Verify]({_CREDENTIALS}). "
            "These pages open in a new tab and get nothing unless you upload the picture there."
        )
    st.markdown("**What now?**\n\n" + "\n".join(lines))
