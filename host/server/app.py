"""The web application: every route, plain and under `/api`, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web import RouteDef

from .context import HOST, Host
from .features import MAX_UPLOAD_BYTES
from .guard import Guard, make_middlewares
from .routes import FAMILIES

# The longest time that closing waits for open requests.
SHUTDOWN_S = 2.0


def make_app(host: Host, guard: Guard) -> web.Application:
    """Serves `host`; its worker runs as long as the application does."""
    app = web.Application(
        middlewares=make_middlewares(guard), client_max_size=MAX_UPLOAD_BYTES + (1 << 20)
    )
    app[HOST] = host
    for family in FAMILIES:
        for route in family.ROUTES:
            under_api = RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)
            app.router.add_routes([route, under_api])
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_say_goodbye)
    return app


async def _running(app: web.Application) -> AsyncIterator[None]:
    host = app[HOST]
    host.hub.attach(asyncio.get_running_loop())
    host.log.listener = host.hub.send_log
    host.worker.start()
    yield
    host.log.listener = None
    await asyncio.to_thread(host.worker.stop)
    host.store.close()


async def _say_goodbye(app: web.Application) -> None:
    """Open WebSockets would keep the server from closing."""
    await app[HOST].hub.close()
