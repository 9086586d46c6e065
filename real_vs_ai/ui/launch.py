"""Start the app's server and build its pages.

Nothing heavy is imported here: `App.py --help` answers at once, and a page imports what it shows.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import sys
from pathlib import Path

# The number of this setting in glibc's <malloc.h>.
_M_ARENA_MAX = -8
_ICON = Path(__file__).with_name("icon.png")


def is_served() -> bool:
    """Whether this code runs as a Streamlit script, not as a program of its own."""
    if "streamlit" not in sys.modules:
        return False
    from streamlit.runtime.scriptrunner import get_script_run_ctx

    return get_script_run_ctx(suppress_warning=True) is not None


def start_server(script: Path, args: argparse.Namespace) -> int:
    """Serve the script until it is interrupted; returns the exit code.

    Args:
        script: App.py.
        args: Its options; the model's are handed on to the script.

    Raises:
        FileNotFoundError: There is no such model.
        ModelFileError: The model cannot be read.
        InputError: The list of trusted signers cannot be read.
    """
    from streamlit.web import cli

    from real_vs_ai.models.model_file import read_metadata
    from real_vs_ai.models.runs import find_model
    from real_vs_ai.provenance import read_trust_list

    # What is wrong stops the program here, not each visitor's page.
    read_trust_list()
    if args.model:
        read_metadata(find_model(args.model, models_dir=args.models_dir))
    options = ["--server.port", str(args.port), "--server.address", args.address]
    passed_on = ["--models-dir", str(args.models_dir)]
    if args.model:
        passed_on += ["--model", args.model]
    cli.main(["run", str(script), *options, "--", *passed_on], standalone_mode=False)
    return 0


def show_app(*, model: str | None, models_dir: Path) -> None:
    """Draw the page that the user is on; for the arguments see `model_choice.offer_models`."""
    import streamlit as st

    def check_pictures() -> None:
        from real_vs_ai.ui.check_page import show_check_page

        show_check_page(model=model, models_dir=models_dir)

    def show_models() -> None:
        from real_vs_ai.ui.models_page import show_models_page

        show_models_page(models_dir=models_dir)

    from real_vs_ai.ui.image_input import bound_uploads
    from real_vs_ai.ui.language import tell
    from real_vs_ai.ui.page_script import run_page_script, show_style

    share_memory_pools()
    # The first page calls it, and nothing can be uploaded before there is a page.
    bound_uploads()
    # Streamlit would fetch an icon for the browser's tab from the internet.
    st.set_page_config(page_title=tell("page.name"), page_icon=_ICON, layout="wide")
    show_style()
    pages = [
        st.Page(
            check_pictures,
            title=tell("page.check"),
            icon=":material/image_search:",
            url_path="check",
            default=True,
        ),
        st.Page(
            show_models,
            title=tell("page.models"),
            icon=":material/model_training:",
            url_path="models",
        ),
    ]
    st.navigation(pages, position="top").run()
    run_page_script()


@functools.cache
def share_memory_pools() -> None:
    """Let glibc's threads share two pools of memory.

    By default it gives most threads a pool of their own that keeps what they free: with 20 visitors
    at once the app took up to twice the memory. Other C libraries do without.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 2)
