"""What both pages share: who may ask, how much may be sent, how errors are said, and the server itself."""

import asyncio
import ipaddress
import os
import socket
import sys
import tempfile
import traceback
import webbrowser
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kgl_mm.errors import UsageError, check_number

PORT = 8000
PATIENCE = 120
"""Seconds that a body may take to arrive."""
AT_ONCE = 32
"""Bodies that may be on their way at a time."""
SWALLOWED = 2**30
"""Bytes of a refused body that are read nevertheless, since few clients hear an answer while they send."""
SECURE = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
}
TYPES = dict(html='text/html', css='text/css', js='text/javascript')


class Site:
    """The routes of a page, with one thread that does all the work, one thing after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='kgl_mm')
        self._arriving = 0

    async def work(self, function: Callable, *args: Any) -> Any:
        found = await asyncio.get_running_loop().run_in_executor(self._thread, _answer, function, *args)
        if isinstance(found, UsageError):
            raise found
        return found

    @asynccontextmanager
    async def body(self, request: Request, most: int) -> AsyncIterator[BinaryIO]:
        """The body of a request as a file with a name, of ``most`` bytes at most; it is never in memory as a whole."""
        if self._arriving >= AT_ONCE:
            raise HTTPException(503, f'{AT_ONCE} files are on their way already: try again', {'Retry-After': '1'})
        self._arriving += 1
        try:
            with tempfile.NamedTemporaryFile(prefix='kgl_mm-') as file:
                await _receive(request, file, most)
                yield file
        finally:
            self._arriving -= 1

    def app(self, routes: Sequence[Route], pages: dict[str, str], names: Sequence[str]) -> Starlette:
        """The application.

        Args:
            routes: of its data.
            pages: what else it serves: paths, and files of a ``template`` folder.
            names: of hosts by which it may be called; see :class:`Guard`.
        """
        return Starlette(
            routes=[*routes, *(Route(path, _page(file)) for path, file in pages.items())],
            middleware=[Middleware(Guard, names=names)],
            exception_handlers={
                UsageError: lambda request, error: say(400, str(error)),
                HTTPException: lambda request, error: say(error.status_code, error.detail, error.headers),
                ClientDisconnect: lambda request, error: Response(status_code=400),
                Exception: _failed,
            },
        )


def _answer(function: Callable, *args: Any) -> Any:
    """What a function returns, or a new error: the frames of its own would keep images in memory for a while."""
    try:
        return function(*args)
    except UsageError as error:
        return UsageError(str(error))


async def _receive(request: Request, file: BinaryIO, most: int) -> None:
    if request.headers.get('content-type', '').startswith('multipart/'):
        most, refusal = 0, HTTPException(415, 'send the bytes of the file alone, as curl --data-binary @FILE does')
    else:
        refusal = HTTPException(413, f'larger than {most / 2**20:.0f} MiB')
    announced = request.headers.get('content-length', '0')
    if announced.isdigit() and int(announced) > SWALLOWED:
        raise refusal
    length = 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= most:
                    file.write(chunk)
                elif length > SWALLOWED:
                    raise refusal
    except TimeoutError:
        raise HTTPException(408, f'it did not arrive within {PATIENCE} seconds') from None
    except OSError as error:
        raise HTTPException(507, f'there is no room for it here ({error.strerror})') from None
    if length > most:
        raise refusal
    file.flush()


def say(status: int, sentence: str, headers: dict | None = None) -> JSONResponse:
    """An answer that is an error."""
    return JSONResponse({'error': sentence.encode('utf-8', 'replace').decode()}, status, headers)


def _failed(request: Request, error: Exception) -> JSONResponse:
    traceback.print_exception(error, file=sys.stderr)
    return say(500, f'the server failed ({type(error).__name__})')


def _page(file: str) -> Callable:
    package, name = file.split('/')
    content = files('kgl_mm').joinpath(package, 'template', name).read_bytes()  # without importing the package
    return lambda request: Response(content, media_type=TYPES[name.rpartition('.')[2]])


class Guard:
    """Refuses what another page in the same browser might ask, and adds headers that keep answers to this page.

    A page elsewhere may send requests here, and may have its own name lead here (DNS rebinding). So the name that a
    request calls this server by must be an address or one of ``names``, and what changes or computes something must
    come from this page itself, or from no page.
    """

    def __init__(self, app: Callable, names: Sequence[str]) -> None:
        self.app = app
        self.names = {name.lower() for name in names}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return

        async def secured(message: dict) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [
                    *message['headers'],
                    *((name.lower().encode(), value.encode()) for name, value in SECURE.items()),
                ]
            await send(message)

        fault = self._fault(scope['method'], Headers(scope=scope))
        await (say(403, fault) if fault else self.app)(scope, receive, secured)

    def _fault(self, method: str, headers: Headers) -> str | None:
        host = headers.get('host', '')
        if not self._is_here(host):
            return f'this server is not called {host[:100]!r}'
        if method in ('GET', 'HEAD'):
            return None
        origin = headers.get('origin')
        site = headers.get('sec-fetch-site', 'none')
        if site not in ('same-origin', 'none') or (origin is not None and urlsplit(origin).netloc != host):
            return 'a page of another origin asks; only this one may'
        return None

    def _is_here(self, host: str) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name in self.names:
            return True
        with suppress(ValueError):
            return ipaddress.ip_address(name).is_loopback or '*' in self.names
        return False


def names_of(host: str) -> list[str]:
    """The names that a server bound to ``host`` may be called by; ``*`` for any address that is a number."""
    if _is_loopback(host):
        return ['localhost', host]
    return ['localhost', host, socket.gethostname(), socket.getfqdn(), '*']


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == 'localhost'


def bind(host: str, port: int | None = None) -> socket.socket:
    """A socket to be served at; without a port that of all pages, or where it is taken any that is free."""
    check_number(0, 65535, whole=True, none='any', port=port)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f'--host {host}: not an address of this machine ({error.strerror})') from None
    for attempt in [PORT, 0] if port is None else [port]:
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((address[0], attempt, *address[2:]))
            found.listen(128)
            return found
        except OSError as error:
            found.close()
            reason = error.strerror
    raise UsageError(f'--host {host} --port {port or PORT}: cannot be served at ({reason})')


def serve(app: Starlette, at: socket.socket, browser: bool = True) -> None:
    """Serve until Ctrl-C, and open the page where there is a screen."""
    host, port = at.getsockname()[:2]
    shown = f'[{host}]' if ':' in host else host
    url = f'http://{"localhost" if host in ("0.0.0.0", "::") else shown}:{port}'
    print(f'{url} (Ctrl-C ends it)', flush=True)
    if not _is_loopback(host):
        print('anyone who reaches this machine can use it: there is no password', flush=True)
    if browser and (sys.platform == 'darwin' or os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        webbrowser.open(url)
    config = uvicorn.Config(app, log_level='warning', access_log=False, server_header=False, lifespan='off')
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[at])
