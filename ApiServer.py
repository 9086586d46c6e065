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

from real_vs_ai.core.cli import MODEL_HELP, command, make_parser
from real_vs_ai.core.options import number, whole_number
from real_vs_ai.service import server
from real_vs_ai.service.access import MEGA, Limits


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, help=MODEL_HELP)
    add("--address", default="localhost", help="name or IP address to listen on")
    add("--port", type=whole_number(0), default=8700, help="port to listen on; 0 takes any")
    add("--keys", type=Path, metavar="FILE", help="let in only clients with a key of this file")
    add("--new-key", metavar="NAME", help="add a key to the file of --keys, show it and stop")
    add(
        "--allow-origin",
        action="append",
        metavar="URL",
        help="let web pages of this origin ask (CORS); may be repeated; * lets all",
    )
    add("--replicas", type=whole_number(1), metavar="N", help="judge by N processes on Ray")
    add(
        "--max-megapixels",
        type=number(0, 1e4, ends=False),
        default=Limits.max_image_pixels / MEGA,
        metavar="N",
        help="largest image, in millions of pixels",
    )
    return parser.parse_args(argv)


@command
def main(argv=None):
    return server.run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
