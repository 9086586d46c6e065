"""Start the service and stop it gracefully.

Nothing heavy is imported here: `ApiServer.py --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

from real_vs_ai.core.errors import InputError
from real_vs_ai.models.runs import find_models
from real_vs_ai.service.access import MEGA, Limits, add_key, required_keys

if TYPE_CHECKING:
    from fastapi import FastAPI

# `docker stop` kills a process 10 s after SIGTERM: what is not answered after 8 s is refused, and a
# batch that is still being computed when the time is over is given up.
_ANSWER_SECONDS, _CLOSE_SECONDS, _END_SECONDS = 8, 0.5, 9


def run(args: argparse.Namespace) -> int:
    """Make a key, or serve until SIGTERM or Ctrl-C; returns the exit code of ApiServer.py.

    Raises:
        InputError: The options do not go together, or a package is missing.
        FileNotFoundError: There is no such model, or no such file of keys.
        OSError: The address cannot be listened on.
    """
    if args.new_key:
        if args.keys is None:
            raise InputError("Expected --keys FILE with --new-key, found none.")
        key = add_key(args.keys, name=args.new_key)
        print(f"The key {args.new_key}, shown only now ({args.keys} holds its hash):\n{key}")
        return 0
    keys = required_keys(args.keys, address=args.address)
    model_path, *others = find_models(args.model)
    if others:
        # Several models: name the folder that holds them.
        model_path = model_path.parent
    limits = Limits(max_image_pixels=round(args.max_megapixels * MEGA))
    try:
        from real_vs_ai.service.application import create_application
        from real_vs_ai.service.judging import LocalJudge, RayJudge
    except ImportError as error:
        raise InputError(
            f'Expected the package {error.name}, found none. Run: pip install -e ".[api]"'
        ) from error
    listening = _listen(args.address, args.port)
    judge: RayJudge | LocalJudge
    if args.replicas:
        judge = RayJudge(model_path, limits=limits, replicas=args.replicas)
    else:
        judge = LocalJudge(model_path, limits=limits)
    try:
        application = create_application(
            judge, limits=limits, keys=keys, origins=args.allow_origin or ()
        )
        names = " and ".join(model.name for model in judge.models)
        host = f"[{args.address}]" if ":" in args.address else args.address
        url = f"http://{host}:{listening.getsockname()[1]}"
        print(f"Serving {names} at {url} (docs: /docs)", flush=True)
        serve(application, listening, holds_model=not args.replicas)
    finally:
        judge.close()
    return 0


def serve(application: FastAPI, listening: socket.socket, *, holds_model: bool) -> None:
    """Answer requests until SIGTERM or SIGINT; then those in flight, and refuse new ones.

    Args:
        holds_model: Whether this process computes. Then it ends in time whatever is computed.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if holds_model:
                end = threading.Timer(_END_SECONDS, os._exit, args=(0,))
                end.daemon = True
                end.start()
            await application.state.admission.stop(seconds=_ANSWER_SECONDS)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        application,
        log_level="warning",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    # uvicorn acts on a signal and raises it again once it has stopped: the exit code is ours.
    ends = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda number, frame: None) for name in ends}
    try:
        Server(config).run(sockets=[listening])
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
    try:
        return socket.create_server((address, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"Cannot listen on {address} port {port}: {reason}. Choose another with --port."
        ) from error
