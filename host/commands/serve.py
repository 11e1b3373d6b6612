"""`wuerstchen serve`: the canvas in a browser, and ComfyUI's API."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ...wuerstchen_core.errors import WuerstchenError
from ..exit_codes import BAD_REQUEST, DONE
from ..interrupt import cancel_on_signals
from ..switches import add_switches, read_switches

if TYPE_CHECKING:
    from aiohttp import web

DEFAULT_PORT = 8188
FIRST_TEMPLATE = "text_to_image"


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="the canvas in a browser",
        description="Serves the ComfyUI canvas and API with the Würstchen nodes. Prints the "
        "address, then runs until Ctrl-C; unfinished prompts go on at the next start.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes any free one (%(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where input, output, models, user … lie (default: the current folder)",
    )
    parser.add_argument(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="a folder of weights to search before DATA/models and the bundled ones; repeatable",
    )
    parser.add_argument("--open", action="store_true", help="open the canvas in the browser")
    parser.add_argument(
        "--custom-nodes",
        action="store_true",
        help="load node packs from DATA/custom_nodes; they run with all your rights",
    )
    parser.add_argument(
        "--token", metavar="WORD", help="ask everyone for this word; the address carries it"
    )
    parser.add_argument(
        "--no-auth",
        action="store_true",
        help="let everyone in who reaches a --host beyond this machine",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that browsers may call this server by; repeatable",
    )
    parser.add_argument(
        "--skip-unfinished",
        action="store_true",
        help="cancel what was running when the server ended, instead of trying it again",
    )
    add_switches(parser)
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)  # the rest is in the canvas's log panel
    try:
        # Here, because `wuerstchen run` works without the packages that a server needs.
        from ..server.assemble import ServeSettings, assemble
    except ImportError as error:
        sys.stderr.write(f'{error}; install the server with pip install -e ".[host]".\n')
        return BAD_REQUEST
    try:
        settings = ServeSettings(
            host=arguments.host,
            port=arguments.port,
            data=arguments.data.resolve(),
            models=tuple(folder.resolve() for folder in arguments.models),
            custom_nodes=arguments.custom_nodes,
            token=arguments.token,
            no_auth=arguments.no_auth,
            allowed_hosts=tuple(arguments.allow_host),
            skip_unfinished=arguments.skip_unfinished,
            optimization=read_switches(arguments),
        )
        listener = _listen(settings.host, settings.port)
        with listener, assemble(settings) as app:
            address = _address(arguments, listener.getsockname()[1])
            return asyncio.run(_serve(app, listener, address, arguments.open))
    except WuerstchenError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_REQUEST


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        advice = (
            "another server is there; choose another --port."
            if taken
            else f"{str(error).rstrip('.')}; check --host and --port."
        )
        raise WuerstchenError(f"Cannot listen on {host}, port {port}: {advice}") from error


def _address(arguments: argparse.Namespace, port: int) -> str:
    """A link that opens the text-to-image graph."""
    host: str = arguments.host
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    query = {"template": FIRST_TEMPLATE, "source": "comfyui-wuerstchen"}
    if arguments.token:
        query["token"] = arguments.token
    return f"http://{name}:{port}/?{urlencode(query)}"


async def _serve(
    app: web.Application, listener: socket.socket, address: str, open_browser: bool
) -> int:
    from aiohttp import web

    from ..server.app import SHUTDOWN_S

    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    with cancel_on_signals() as asked_to_stop:
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            sys.stdout.write(f"{address}\n")
            sys.stdout.flush()
            if open_browser:
                await asyncio.to_thread(webbrowser.open, address)
            await asyncio.to_thread(asked_to_stop.wait)
            sys.stderr.write("Stopping after the step at work; Ctrl-C again stops at once.\n")
        finally:
            await runner.cleanup()
    return DONE
