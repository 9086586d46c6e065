"""The HTTP service for programs: send images, get verdicts as JSON.

    python ApiServer.py
    curl -F files=@photograph.jpg -F files=@picture.png http://localhost:8700/v1/images

It listens on localhost only. To listen elsewhere it needs keys for its clients:

    python ApiServer.py --keys api-keys.txt --new-key newsroom
    python ApiServer.py --keys api-keys.txt --address 0.0.0.0

Packages: requirements-api.txt. Addresses, limits and replicas: docs/service.md, and /docs of the
running service.
"""

import sys
from pathlib import Path

from real_vs_ai.cli import command, make_parser
from real_vs_ai.config import MODELS_DIR
from real_vs_ai.options import CLUSTERS, whole_number
from real_vs_ai.service import launch
from real_vs_ai.service.limits import add_limits


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, help="run folder or .h5 file")
    parser.add_argument(
        "--models-dir", type=Path, default=MODELS_DIR, help="where finished runs are looked for"
    )
    parser.add_argument("--address", default="localhost", help="name or IP address to listen on")
    parser.add_argument("--port", type=whole_number(0), default=8700, help="0: any that is free")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="ask clients for one of its keys")
    parser.add_argument("--new-key", metavar="NAME", help="add a key to the file, show it and stop")
    parser.add_argument("--cluster", choices=CLUSTERS, help="judge with replicas on a Ray cluster")
    parser.add_argument(
        "--replicas", type=whole_number(1), default=2, metavar="N", help="with --cluster ray"
    )
    add_limits(parser)
    return parser.parse_args(argv)


@command
def main(argv=None):
    return launch.run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
