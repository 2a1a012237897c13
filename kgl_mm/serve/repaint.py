"""The page on which priors are repainted."""

from pathlib import Path

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kgl_mm.visualization import overlay

from .app import Site
from .gallery import Gallery

MOST_BYTES = 16 * 2**20
THUMBNAIL = 128


def repaint_app(gallery: Gallery, names: tuple[str, ...] = ('localhost',)) -> Starlette:
    """The application: a page at ``/``, the maps below ``/api/maps``, to which masks are posted as PNG files.

    Args:
        gallery: what is painted on; nothing but its own maps is read or written.
        names: see :class:`~kgl_mm.serve.app.Guard`.
    """
    site = Site()

    async def maps(request: Request) -> JSONResponse:
        return JSONResponse(await site.work(_list, gallery))

    def view(draw, suffix: str, kind: str):
        async def answer(request: Request) -> Response:
            image = await site.work(draw, gallery, request.path_params['number'])
            return Response(cv2.imencode(suffix, image)[1].tobytes(), media_type=kind)

        return answer

    async def save(request: Request) -> JSONResponse:
        async with site.body(request, MOST_BYTES) as file:
            content = Path(file.name).read_bytes()
            return JSONResponse(await site.work(gallery.save, request.path_params['number'], content))

    async def revert(request: Request) -> JSONResponse:
        return JSONResponse(await site.work(gallery.revert, request.path_params['number']))

    jpeg, png = ('.jpg', 'image/jpeg'), ('.png', 'image/png')
    routes = [
        Route('/api/maps', maps),
        Route('/api/maps/{number:int}', save, methods=['POST']),
        Route('/api/maps/{number:int}/revert', revert, methods=['POST']),
        Route('/api/maps/{number:int}/image', view(Gallery.image, *jpeg)),
        Route('/api/maps/{number:int}/heat', view(_heat, *png)),
        Route('/api/maps/{number:int}/mask', view(_mask, *png)),
        Route('/api/maps/{number:int}/thumbnail', view(_thumbnail, *jpeg)),
    ]
    pages = {
        '/': 'serve/repaint.html',
        '/repaint.js': 'serve/repaint.js',
        '/serve.css': 'serve/serve.css',
        '/style.css': 'report/style.css',
    }
    return site.app(routes, pages, names)


def _list(gallery: Gallery) -> dict:
    found = [gallery.facts(number) for number in range(len(gallery))]
    return dict(maps=found, title=gallery.title, command=gallery.command)


def _heat(gallery: Gallery, number: int) -> np.ndarray:
    return (gallery.heat(number) * 255).round().astype(np.uint8)


def _mask(gallery: Gallery, number: int) -> np.ndarray:
    return gallery.mask(number) * np.uint8(255)


def _thumbnail(gallery: Gallery, number: int) -> np.ndarray:
    """The image under its map, or under what a person painted."""
    place, image = gallery.place(number), gallery.image(number)
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    shown = gallery.mask(number) if place.edited else gallery.heat(number)
    return overlay(small, shown.astype(np.float32))
