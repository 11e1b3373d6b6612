"""Who is let in, and what every answer forbids the browser to do."""

from __future__ import annotations

import errno
import hmac
import html
import ipaddress
import logging
import re
import sqlite3
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .answers import Refusal, refuse
from .frontend import frontend_folder

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

logger = logging.getLogger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Fine to listen on, but a browser that is told to ask there may take it for its own machine.
UNSPECIFIED = frozenset({"0.0.0.0", "[::]"})
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:(?P<port>[0-9]{1,5}))?")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "wuerstchen",  # not the versions of what it is made of
}

INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)

TOKEN_QUERY = "token"
NO_TOKEN = "Not allowed in without the token; open the address that ends in ?token=…"


@dataclass(frozen=True)
class Guard:
    """`names` are the hosts that a request may be addressed to, without the port; with
    `any_address` also every IP address. With a `token` only who knows it is let in."""

    names: frozenset[str] = LOOPBACK
    any_address: bool = False
    token: str | None = field(default=None, repr=False)

    @classmethod
    def for_address(cls, host: str, allowed: Iterable[str] = (), token: str | None = None) -> Guard:
        """For a server that listens on `host`; `allowed` are more names of it."""
        own = f"[{host}]" if ":" in host else host
        names = {_name(one.lower()) or one.lower() for one in (own, *allowed)}
        return cls((LOOPBACK | names) - UNSPECIFIED, not is_loopback(host), token)

    def knows(self, host: str) -> bool:
        """Whether a `Host` header names this server.

        A page of another site can make its own DNS name point here (DNS rebinding), and then the
        browser takes this server for that site; it cannot do so with an IP address.
        """
        name = _name(host.lower())
        return name is not None and (name in self.names or (self.any_address and _is_address(name)))

    def is_token(self, given: str | None) -> bool:
        if self.token is None or given is None:
            return False
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def content_policy(page: str) -> str:
    """The Content-Security-Policy under which the canvas's page works and asks nobody else.

    Of scripts, those of this server's files run, and those in the page itself, known by their
    hash. The canvas uses inline styles, workers made from blobs, and data: URLs for pictures.
    """
    inline = " ".join(f"'sha256-{_sha256(script)}'" for script in INLINE_SCRIPT.findall(page))
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'wasm-unsafe-eval' blob: {inline}".rstrip(),
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "frame-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        )
    )


def _sha256(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def make_middlewares(guard: Guard) -> list[Middleware]:
    """Outermost first: the headers go onto errors too, and the gate's refusals are errors.

    Raises WuerstchenError when the canvas is not installed.
    """
    page = (frontend_folder() / "index.html").read_text(encoding="utf-8")
    headers = {**HEADERS, "Content-Security-Policy": content_policy(page)}

    @web.middleware
    async def with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    @web.middleware
    async def through_gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_host(guard, request)
        _check_site(request)
        _check_origin(request)
        if guard.token is None:
            return await handler(request)
        return await _with_token(guard, request, handler)

    return [with_headers, _errors_as_answers, through_gate]


@web.middleware
async def _errors_as_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(refusal.status, str(refusal))
    except web.HTTPException as error:
        kept = {key: value for key, value in error.headers.items() if key in ("Allow", "Location")}
        text = error.reason if error.status >= 400 else None
        return web.Response(status=error.status, text=text, headers=kept)
    except (HttpProcessingError, web.RequestPayloadError, ConnectionError):
        return _error(400, "The request broke off, or its body is not what its headers say.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _failed(request)
        logger.error("the disk is full")
        return _error(507, "The disk is full; make room and try again.")
    except sqlite3.Error as error:
        logger.error("the job database failed: %s", error)
        return _error(507, "The job database cannot be used now; is the disk full?")
    except Exception:
        return _failed(request)


def _failed(request: web.Request) -> web.Response:
    logger.exception("%s %r failed", request.method, request.path)
    return _error(500, "The server failed at this; its log says why.")


def _error(status: int, message: str, **options: Any) -> web.Response:
    return web.json_response({"error": message}, status=status, **options)


def _check_host(guard: Guard, request: web.Request) -> None:
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not guard.knows(hosts[0]):
        refuse(403, "This server does not go by that name; --allow-host NAME adds one.")


def _check_site(request: web.Request) -> None:
    """Browsers say which site a request comes from. Another port of this machine is `same-site`
    and no friend either; only opening the canvas by a link is everyone's right."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    opens_canvas = (
        request.method == "GET"
        and request.path == "/"
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
    )
    if site not in ("none", "same-origin") and not opens_canvas:
        refuse(403, "Requests from other sites are not answered.")


def _check_origin(request: web.Request) -> None:
    host = request.headers["Host"].lower()
    # A proxy in front may speak https while this server hears http.
    own = (f"http://{host}", f"https://{host}")
    if any(origin.lower() not in own for origin in request.headers.getall("Origin", [])):
        refuse(403, "Requests from other sites are not answered.")


async def _with_token(guard: Guard, request: web.Request, handler: Handler) -> web.StreamResponse:
    opens_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
    cookie = _cookie_name(request)
    if guard.is_token(request.query.get(TOKEN_QUERY)):
        if not opens_page:
            return await handler(request)
        response = _page_without_token(request)
        assert guard.token is not None
        response.set_cookie(
            cookie, guard.token, httponly=True, samesite="Strict", secure=request.secure
        )
        return response
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and guard.is_token(given.strip()):
        return await handler(request)
    if guard.is_token(request.cookies.get(cookie)):
        return await handler(request)
    headers = {"WWW-Authenticate": "Bearer"}
    if opens_page:
        return web.Response(status=401, text=NO_TOKEN, headers=headers)
    return _error(401, NO_TOKEN, headers=headers)


def _page_without_token(request: web.Request) -> web.Response:
    """A page that goes on to the same address without the token.

    Not a redirect: after a click on a link of another site, a browser would follow that without
    the new cookie, which is only for requests that this server's own pages make.
    """
    rest = request.rel_url.without_query_params(TOKEN_QUERY)
    target = html.escape("/" + str(rest).lstrip("/\\"), quote=True)
    return web.Response(
        text=f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">',
        content_type="text/html",
        headers={"Cache-Control": "no-store"},
    )


def _cookie_name(request: web.Request) -> str:
    """Of its own for each port: a browser sends a host's cookies to all of them, and another
    server may be there."""
    found = HOST.fullmatch(request.headers["Host"].lower())
    return f"wuerstchen_token_{found['port'] if found else None}"


def _name(host: str) -> str | None:
    found = HOST.fullmatch(host)
    return found["name"] if found else None


def _is_address(name: str) -> bool:
    """An IP address that someone can be reached at."""
    try:
        return not ipaddress.ip_address(name.strip("[]")).is_unspecified
    except ValueError:
        return False
