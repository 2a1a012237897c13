"""The page on which a model is tried, and the endpoint beside it for machines."""

import base64
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kgl_mm.apis.inspector import DefectInspector
from kgl_mm.errors import UsageError
from kgl_mm.inspection import Result, Source, find_regions
from kgl_mm.inspection.exported_network import ExportedNetwork

from .app import Site

MOST_BYTES = 64 * 2**20
MOST_PIXELS = 64 * 10**6
MOST_SEEN = 2**23
"""Pixels that the network may be shown at once: a large one takes some kilobytes for each."""
MOST_GIVEN = 2**25
"""The same for a network that was exported, which is given the whole image, and may shrink it first."""
MOST_FILES = 1000
"""On the page at a time."""
MOST_REGIONS = 100
NAME = 200
PICTURE, HEAT = 1000, 400
"""Longer sides of what the page shows."""
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP')


def inspect_app(inspector: DefectInspector, title: str = '', names: tuple[str, ...] = ('localhost',)) -> Starlette:
    """The application: a page at ``/``, ``GET /api/model``, and ``POST /api/inspect`` with an image as its body.

    Images are looked at one after the other. Nothing of them is kept.

    Args:
        inspector: what looks at them.
        title: what the page calls the model.
        names: see :class:`~kgl_mm.serve.app.Guard`.
    """
    site = Site()
    inspector.network = _Bounded(inspector.network)

    async def model(request: Request) -> JSONResponse:
        threshold = inspector.threshold
        return JSONResponse(
            dict(
                title=title,
                classes=list(inspector.classes),
                has_good=threshold is not None,
                threshold=threshold and dict(vars(threshold), text=str(threshold)),
                most_bytes=MOST_BYTES,
                most_files=MOST_FILES,
            )
        )

    async def inspect(request: Request) -> JSONResponse:
        name = _printable(request.query_params.get('name') or 'image')
        async with site.body(request, MOST_BYTES) as file:
            result = await site.work(_look, inspector, Path(file.name), name, 'pictures' in request.query_params)
        return JSONResponse(result)

    routes = [Route('/api/model', model), Route('/api/inspect', inspect, methods=['POST'])]
    pages = {
        '/': 'serve/inspect.html',
        '/inspect.js': 'serve/inspect.js',
        '/serve.css': 'serve/serve.css',
        '/style.css': 'report/style.css',
    }
    return site.app(routes, pages, names)


class _Bounded:
    """A network that refuses an image for which it would take too much memory."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def prepare(self, source: Source, image: np.ndarray) -> dict:
        seen = self._network.prepare(source, image)
        shrinks = isinstance(self._network, ExportedNetwork) and self._network.facts.get('size', 'null') != 'null'
        most = MOST_GIVEN if shrinks else MOST_SEEN
        pixels = math.prod(self._network.shape(seen)) / 3
        if pixels > most:
            raise UsageError(
                f'{source.name}: the network would be shown {pixels / 1e6:.1f} million pixels, more than '
                f'{most / 1e6:.1f} million'
            )
        return seen


def _look(inspector: DefectInspector, path: Path, name: str, pictures: bool) -> dict:
    _check(path)
    try:
        result = next(inspector.stream(Source(path, name), 1))
        return dict(result.as_dict(), **(_pictures(result) if pictures else {}))
    except UsageError as error:
        raise UsageError(str(error).removeprefix(f'{name}: ')) from None
    except (MemoryError, cv2.error, ArithmeticError, LookupError) as error:
        raise UsageError(f'cannot be inspected ({type(error).__name__})') from error


def _check(path: Path) -> None:
    """Refuse by its first bytes what is no image, or too large a one."""
    if not path.stat().st_size:
        raise UsageError('the file is empty')
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise UsageError(f'more than {MOST_PIXELS // 10**6} million pixels') from None
    except Exception:  # decoders of anything
        raise UsageError('not a JPEG, PNG, BMP, TIFF or WebP image, whatever its name says') from None
    if width * height > MOST_PIXELS:
        raise UsageError(f'{width} x {height} pixels, more than {MOST_PIXELS // 10**6} million')


def _pictures(result: Result) -> dict:
    """What the page shows: the image, the heat map as a layer over it, and regions, whatever the threshold."""
    found = dict(picture=_uri(_within(result.source.read(), PICTURE), '.jpg'), heat=None, places=[])
    if result.map is not None:
        heat = _within(result.map, HEAT)
        places = find_regions(result.map, result.size)
        found.update(heat=_uri(_layer(heat), '.png'), places=[vars(place) for place in places[:MOST_REGIONS]])
    return found


def _layer(heat: np.ndarray) -> np.ndarray:
    """BGRA: the colours of :func:`~kgl_mm.visualization.overlay`, the hotter the less transparent."""
    level = (heat.clip(0, 1) * 255).round().astype(np.uint8)
    return np.dstack([cv2.applyColorMap(255 - level, cv2.COLORMAP_AUTUMN), level])


def _within(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image


def _uri(image: np.ndarray, suffix: str) -> str:
    data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == '.jpg' else [])[1]
    return f'data:image/{suffix[1:].replace("jpg", "jpeg")};base64,{base64.b64encode(data.tobytes()).decode()}'


def _printable(name: str) -> str:
    """A name that was sent, without what terminals obey, and not too long."""
    return ''.join(letter if letter.isprintable() else '?' for letter in name[:NAME])
