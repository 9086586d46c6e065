"""Offer a text to report a wrong answer with; nothing is sent from the page."""

from __future__ import annotations

import streamlit as st

from real_vs_ai import __version__
from real_vs_ai.serving.judge import Judge
from real_vs_ai.serving.served_model import ServedModel
from real_vs_ai.ui.checking import Card
from real_vs_ai.ui.language import tell
from real_vs_ai.ui.wording import visible
from real_vs_ai.verdicts.verdict import thresholds_of


def show_mistake_report(judged: Card, *, judge: Judge, key: str) -> None:
    """A button that opens the text."""
    with st.popover(
        tell("mistake.button"), icon=":material/flag:", key=key, on_change="rerun"
    ) as opened:
        # The model's file is hashed once, when the first visitor asks.
        if opened.open:
            st.markdown(tell("mistake.what"))
            text = mistake_report(judged, model=judge.model_of(judged.verdict))
            st.code(text, language=None, wrap_lines=True)


def mistake_report(result: Card, *, model: ServedModel) -> str:
    """All that a maintainer needs to reproduce a wrong verdict, in English; no file name."""
    answer, verdict, metadata = result.answer, result.given_verdict, model.metadata
    thresholds = ", ".join(
        f"{name} {'none' if value is None else f'{value:.4f}'}"
        for name, value in thresholds_of(metadata).items()
    )
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in verdict.probabilities.items())
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    lines = {
        "Picture": f"SHA-256 {answer.sha256}",
        "Format": f"{answer.width} × {answer.height} pixels, {answer.format}",
        "Conclusion": result.conclusion.title,
        "Verdict": verdict.label,
        "Scores": numbers or "none",
        "Reasons": " ".join(reason.sentence for reason in verdict.reasons) or "none",
        "Model": f"{visible(model.name)}, SHA-256 {model.sha256}",
        "Made": f"{metadata.created or 'date not recorded'}; {versions or 'versions not recorded'}",
        "Thresholds": thresholds,
        "App": f"real_vs_ai {__version__}",
        "What it should be": "(please fill in)",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())
