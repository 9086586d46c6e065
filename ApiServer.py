"""The HTTP service for programs: send images, get verdicts as JSON.

    python ApiServer.py
    curl -F files=@photograph.jpg -F files=@picture.png http://localhost:8700/v1/images

It listens on localhost only. To listen elsewhere it needs keys for its clients:

    python ApiServer.py --keys api-keys.txt --new-key newsroom
    python ApiServer.py --keys api-keys.txt --address 0.0.0.0

Packages: pip install -e ".[api]". Addresses, limits and replicas: docs/service.md, and /docs of the
running service.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import MODELS_DIR
from real_vs_ai.options import CLUSTERS, MODEL_HELP, whole_number
from real_vs_ai.service import launch
from real_vs_ai.service.limits import add_limits


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, help=MODEL_HELP)
    add("--models-dir", type=Path, default=MODELS_DIR, help="where finished runs are looked for")
    add("--address", default="localhost", help="name or IP address to listen on")
    add("--port", type=whole_number(0), default=8700, help="port to listen on; 0 takes any")
    add("--keys", type=Path, metavar="FILE", help="let in only clients with a key of this file")
    add("--new-key", metavar="NAME", help="add a key to the file of --keys, show it and stop")
    add("--cluster", choices=CLUSTERS, help="judge with replicas on a Ray cluster")
    add("--replicas", type=whole_number(1), default=2, metavar="N", help="processes on the cluster")
    add_limits(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    return launch.run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
