"""Let the user choose the model in the sidebar, and open it.

chosen = choose_model(model=None, models_dir=Path("models"))
if chosen is not None:
    verdict = chosen.service.submit(pixels).result()
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from real_vs_ai.config import RELEASED_MODEL_DIR
from real_vs_ai.errors import describe_error
from real_vs_ai.files import hash_file
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution import describe_sizes
from real_vs_ai.runs import find_model, find_models, list_runs, model_name, released_runs
from real_vs_ai.serving.shared_model import ModelUnavailableError
from real_vs_ai.ui.model_service import ModelService
from real_vs_ai.ui.wording import as_markdown, visible
from real_vs_ai.verdict import Verdict

_CHOICE_KEY = "model"
# The entry that lets all released models answer.
SEVERAL_RELEASED = "released, chosen by image size"


@dataclass(frozen=True)
class ChosenModel:
    """The model that answers in this session.

    Attributes:
        name: Its run's name, for people.
        key: Changes when the file does: path, time of change, size.
        path: The `.h5` file, or a folder with several models that answer together.
        service: Answers for all sessions.
    """

    name: str
    key: tuple[str, int, int]
    path: Path
    service: ModelService

    @property
    def metadata(self) -> ModelMetadata:
        return self.service.metadata

    @property
    def is_several(self) -> bool:
        """Whether several models answer, each image by the one of its size."""
        return len(self.service.metadatas) > 1

    def metadata_of(self, verdict: Verdict | None) -> ModelMetadata:
        """Of the model that gave a verdict."""
        name = verdict.model if verdict else ""
        return self.service.metadatas.get(name, self.metadata)

    def file_of(self, verdict: Verdict) -> tuple[str, int, int]:
        """The key of the model file that gave a verdict."""
        paths = find_models(self.path)
        return file_key(next((p for p in paths if model_name(p) == verdict.model), paths[0]))


def choose_model(*, model: str | None, models_dir: Path) -> ChosenModel | None:
    """Let the user choose in the sidebar; without any usable model, say why and return None.

    Args:
        model: A run folder or `.h5` file to offer first, or None.
        models_dir: Where runs are looked for.
    """
    try:
        paths = available_models(model=model, models_dir=models_dir)
    except OSError as error:
        st.error(as_markdown(describe_error(error)), icon=":material/error:")
        return None
    if not paths:
        show_how_to_get_a_model(models_dir)
        return None
    previous = st.session_state.get(_CHOICE_KEY)
    if previous is not None and previous not in paths:
        st.warning(
            f"The model {as_markdown(previous)} is no longer there; another one answers now.",
            icon=":material/swap_horiz:",
        )
        del st.session_state[_CHOICE_KEY]
    with st.sidebar:
        name = st.selectbox("Model", list(paths), key=_CHOICE_KEY)
    return _open_model(name, paths[name])


def available_models(*, model: str | None, models_dir: Path) -> dict[str, Path]:
    """Model files by the names the user chooses from, the default one first."""
    paths: dict[str, Path] = {}
    if model is not None:
        path = find_model(model)
        paths[visible(model_name(path))] = path
    released = released_runs(models_dir)
    for run in list_runs(models_dir):
        if len(released) > 1 and run == released[0]:
            # Before the first of them: who has no model of his own starts with all of them.
            paths.setdefault(SEVERAL_RELEASED, run.path)
        paths.setdefault(visible(run.name), run.model)
    return paths


def file_key(path: Path) -> tuple[str, int, int]:
    """Path, time of change and size; of a folder, those of its models together."""
    stats = [model.stat() for model in find_models(path)]
    newest = max(stat.st_mtime_ns for stat in stats)
    return (str(path.resolve()), newest, sum(stat.st_size for stat in stats))


def show_how_to_get_a_model(models_dir: Path) -> None:
    """What to do where there is no model yet."""
    st.info("There is no trained model yet, so no image can be checked.", icon=":material/info:")
    st.markdown(
        "Get one in a terminal, in the project's folder, then reload this page:\n\n"
        "- **In a few minutes**, a small model on built-in example pictures, to see how "
        "everything works:"
    )
    st.code("python RunPipeline.py --demo", language="bash")
    st.markdown("- **On your own data**, once it is prepared (the README walks through it):")
    st.code("python ModelTraining.py", language="bash")
    st.markdown(
        f"- **Somebody else's model**: put its folder, with `model.h5` in it, at "
        f"{as_markdown(str(models_dir / RELEASED_MODEL_DIR.name))}."
    )


def show_model_facts(chosen: ChosenModel) -> None:
    """What a user should know of the model before believing it, for the sidebar."""
    for name, metadata in chosen.service.metadatas.items():
        if chosen.is_several:
            st.caption(f"**{as_markdown(visible(name))}**")
        _show_facts(metadata)


def _show_facts(metadata: ModelMetadata) -> None:
    lines = [f"{len(metadata.class_names)} classes: {_listed(metadata.class_names)}"]
    size, crops = metadata.image_size, metadata.model_input
    if crops.is_crops:
        lines.append(f"Looks at {crops.crops} crops of {size} × {size} pixels at full detail")
    else:
        lines.append(f"Looks at images at {size} × {size} pixels")
    sizes = describe_sizes(metadata.training_images)
    if sizes:
        lines.append(f"Learnt from images of {sizes}; much larger or smaller ones stay Uncertain")
    if metadata.backbone:
        lines.append(f"Network: {as_markdown(metadata.backbone)}")
    if metadata.calibrated:
        lines.append("Calibrated: its probabilities can be read as such")
    else:
        lines.append("**Not calibrated yet**: its scores are not probabilities")
    st.caption("\n".join(f"- {line}" for line in lines))


def forget_failed_models() -> None:
    """Open models again, after one could not be opened."""
    _service.clear()


@st.cache_resource(max_entries=3, show_spinner=False, on_release=ModelService.close)
def _service(path: str, modified_ns: int, size: int) -> ModelService:
    return ModelService(Path(path))


@st.cache_data(max_entries=8, show_spinner=False)
def model_digest(path: str, modified_ns: int, size: int) -> str:
    """SHA-256 of a model file; takes a `ChosenModel.key`, so that a changed file is read again."""
    return " and ".join(hash_file(model) for model in find_models(path))


def _open_model(name: str, path: Path) -> ChosenModel | None:
    try:
        key = file_key(path)
        return ChosenModel(name, key, path, _service(*key))
    except (OSError, ValueError) as error:
        st.error(
            f"The model {as_markdown(name)} cannot be used: {as_markdown(describe_error(error))} "
            "Choose another one in the sidebar, or train one.",
            icon=":material/error:",
        )
        return None


def show_unavailable(error: ModelUnavailableError) -> None:
    """Say that the model failed while it should answer, and offer to try again."""
    st.error(f"The model could not answer: {as_markdown(str(error))}", icon=":material/error:")
    st.button("Try again", on_click=forget_failed_models, icon=":material/refresh:")


def _listed(class_names: tuple[str, ...]) -> str:
    return ", ".join(as_markdown(visible(name)) for name in class_names)
