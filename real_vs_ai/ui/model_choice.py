"""Let the user choose the model, and open it for all sessions of the app."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from real_vs_ai.core.config import RELEASED_MODEL_DIR
from real_vs_ai.core.errors import describe_error
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import find_model, find_models, list_runs, model_name, released_runs
from real_vs_ai.serving.judge import Judge
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.ui.image_input import MAX_BYTES
from real_vs_ai.ui.language import local, tell
from real_vs_ai.ui.wording import (
    as_markdown,
    class_words,
    known_sizes,
    thresholds_sentence,
    visible,
)

# The name of the choice in the session and in a link to the page.
MODEL_KEY = "model"
# What the session holds of one model: answers by file, verdicts on changed copies and heat maps by
# content digest.
_OF_ONE_MODEL = ("checks", "variants", "heat_maps")
_ANSWERED_BY_KEY = "answered_by"
# The entry that lets all released models answer.
SEVERAL_RELEASED = "released, chosen by image size"


def offer_models(*, model: str | None, models_dir: Path) -> dict[str, Path]:
    """The models to choose from, as `available_models`; without any, say why and return {}.

    Args:
        model: A run folder or `.h5` file to offer first, or None.
        models_dir: The folder of runs.
    """
    try:
        paths = available_models(model=model, models_dir=models_dir)
    except OSError as error:
        show_error(tell("models.absent"), describe_error(error))
        return {}
    if not paths:
        show_how_to_get_a_model(models_dir)
        return {}
    # The session or a link says which.
    wanted = st.session_state.get(MODEL_KEY) or st.query_params.get(MODEL_KEY)
    if wanted is not None and wanted not in paths:
        st.warning(tell("models.gone", name=as_markdown(wanted)), icon=":material/swap_horiz:")
        st.session_state.pop(MODEL_KEY, None)
    return paths


def choose_model(paths: Mapping[str, Path]) -> str:
    """Let the user choose one of the names; the page's address holds it."""
    return st.selectbox(
        tell("models.choose"),
        list(paths),
        key=MODEL_KEY,
        bind="query-params",
        format_func=lambda name: tell("models.several") if name == SEVERAL_RELEASED else name,
    )


def available_models(*, model: str | None, models_dir: Path) -> dict[str, Path]:
    """Model files by the names the user chooses from, the default one first."""
    paths: dict[str, Path] = {}
    if model is not None:
        path = find_model(model)
        paths[visible(model_name(path))] = path
    released = released_runs(models_dir)
    for run in list_runs(models_dir):
        if len(released) > 1 and run == released[0]:
            # It stands before the first of them, so that users without a model start with all.
            paths.setdefault(SEVERAL_RELEASED, run.path)
        paths.setdefault(visible(run.name), run.model)
    return paths


def file_key(path: Path) -> tuple[str, int, int]:
    """Path, time of change and size; of a folder, those of its models together."""
    stats = [model.stat() for model in find_models(path)]
    newest = max(stat.st_mtime_ns for stat in stats)
    return (str(path.resolve()), newest, sum(stat.st_size for stat in stats))


def show_how_to_get_a_model(models_dir: Path) -> None:
    """Say what to do where there is no model yet."""
    st.info(tell("models.none"), icon=":material/info:")
    st.markdown(f"{tell('models.get')}\n\n- {tell('models.get_demo')}")
    st.code("python RunPipeline.py --demo", language="bash")
    st.markdown(f"- {tell('models.get_own')}")
    st.code("python ModelTraining.py", language="bash")
    folder = as_markdown(str(models_dir / RELEASED_MODEL_DIR.name))
    st.markdown(f"- {tell('models.get_other', folder=folder)}")


def show_model_facts(judge: Judge) -> None:
    """What is known of the model."""
    models = judge.models
    for model in models:
        if len(models) > 1:
            st.markdown(f"**{as_markdown(visible(model.name))}**")
        st.markdown("\n".join(f"- {line}" for line in _facts(model.metadata)))


def _facts(metadata: ModelMetadata) -> list[str]:
    words = [as_markdown(local(class_words(name, metadata))) for name in metadata.class_names]
    side, crops = metadata.image_size, metadata.model_input
    if not crops.is_crops:
        seen = tell("facts.resized", side=side)
    elif crops.overview:
        seen = tell("facts.crops_and_whole", crops=crops.crops, side=side, whole=crops.overview)
    else:
        seen = tell("facts.crops", crops=crops.crops, side=side)
    sizes, network = local(known_sizes([metadata])), as_markdown(metadata.backbone)
    return [
        tell("facts.classes", classes=", ".join(words)),
        seen,
        *([tell("facts.sizes", sizes=sizes)] if sizes else []),
        *([tell("facts.network", network=network)] if metadata.backbone else []),
        tell("facts.calibrated" if metadata.calibrated else "facts.not_calibrated"),
        local(thresholds_sentence(metadata)),
    ]


def show_error(what: str, text: str) -> None:
    """An error, in the page's own font; the text may come from a file."""
    with st.container(border=True):
        st.markdown(f":red[**{what}**]")
        st.text(text)


@st.cache_resource(max_entries=3, show_spinner=False)
def _judge(path: str, modified_ns: int, size: int) -> Judge:
    return Judge(Path(path), max_bytes=MAX_BYTES)


def open_chosen(name: str, path: Path) -> Judge | None:
    """Open a model; one that cannot be used gives a message and None.

    What the session knows from another model, or from a file that was replaced, is forgotten.
    """
    try:
        key = file_key(path)
        judge = _judge(*key)
        if st.session_state.get(_ANSWERED_BY_KEY) != key:
            st.session_state[_ANSWERED_BY_KEY] = key
            st.session_state.update({part: {} for part in _OF_ONE_MODEL})
        return judge
    except (OSError, ValueError) as error:
        show_error(
            tell("models.unusable", name=as_markdown(name)),
            f"{describe_error(error)} {tell('models.choose_another')}",
        )
        return None


def show_unavailable(error: ModelUnavailableError) -> None:
    """Say that the model failed while it should answer, and offer to try again."""
    show_error(tell("models.failed"), str(error))
    st.button(tell("models.try_again"), on_click=_judge.clear, icon=":material/refresh:")
