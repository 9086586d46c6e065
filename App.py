"""The web page: upload images, see for each whether it looks AI-generated, and why.

    python App.py
    python App.py --model models/first-try --port 8600
    streamlit run App.py -- --model models/first-try

It opens at http://localhost:8501, with the released models, or the one that
ImageScoring.py --make-default chose.
"""

import sys
from pathlib import Path

from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.config import MODELS_DIR
from real_vs_ai.core.options import whole_number
from real_vs_ai.ui import launch


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", help="run folder or .h5 file to offer first")
    parser.add_argument(
        "--models-dir", type=Path, default=MODELS_DIR, help="where finished runs are looked for"
    )
    parser.add_argument("--address", default="localhost", help="name or IP address to listen on")
    parser.add_argument("--port", type=whole_number(0), default=8501, help="port to listen on")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    return launch.start_server(Path(__file__), args)


if __name__ == "__main__":
    if launch.is_served():
        options = parse_args()
        launch.show_app(model=options.model, models_dir=options.models_dir)
    else:
        sys.exit(main())
