import threading
import time

import cv2
import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from kgl_mm.apis import DefectInspector
from kgl_mm.inspection import Judge
from kgl_mm.priors import PriorStore
from kgl_mm.serve.app import bind
from kgl_mm.serve.gallery import open_gallery


class Network:
    """A network for which an image is as defective as it is dark, and a defect where it is darkest."""

    def __init__(self, judge):
        self.judge = judge
        self.most = 0

    def prepare(self, source, image):
        return dict(inputs=np.moveaxis(image, 2, 0))

    @staticmethod
    def shape(seen):
        return seen['inputs'].shape

    def run(self, batch, sizes):
        found = []
        for seen in batch:
            heat = 1 - seen['inputs'].mean(0, dtype=np.float32) / 255
            rest = [(1 - heat.max()) / (len(self.judge.classes) - 1)] * (len(self.judge.classes) - 1)
            found.append(((*map(float, rest), float(heat.max())), heat))
        return found


@pytest.fixture
def inspector():
    """A function that gives an inspector of some classes."""

    def build(classes=('good', 'defect'), has_good=True):
        found = DefectInspector.__new__(DefectInspector)
        found.judge = Judge(classes, has_good)
        found.network = Network(found.judge)
        return found

    return build


def picture(dark=200, shape=(40, 60), suffix='.png'):
    """An image file with a square of this darkness."""
    image = np.full((*shape, 3), 240, np.uint8)
    image[8:16, 10:30] = 255 - dark
    return cv2.imencode(suffix, image)[1].tobytes()


def client(app, **kwargs):
    return TestClient(app, base_url='http://localhost:8000', raise_server_exceptions=False, **kwargs)


TRUSTS = dict(good=0.1, d0=0.9, d1=0.2, d2=0.5, d3=None)


@pytest.fixture
def store(tmp_path):
    """A store of a good and four defective images, with their images in ``images``, of 40 x 60 pixels."""
    store = PriorStore(tmp_path / 'store')
    store.begin('evidence', dict(method='cam'), fraction=0.5)
    for number, (name, trust) in enumerate(TRUSTS.items()):
        key = f'{"good" if name == "good" else "bad"}/{name}.png'
        path = tmp_path / 'images' / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(dark=100 + 20 * number))
        map = np.zeros((40, 60), np.float32)
        map[20:30, 30:50] = 0.4
        facts = {} if trust is None else dict(trust=trust)
        store.write(key, map, label=int(name != 'good'), **facts)
    store.compact()
    return store


@pytest.fixture
def gallery(store, tmp_path):
    return open_gallery(store.root, tmp_path / 'images')


def as_png(mask):
    return cv2.imencode('.png', np.asarray(mask, np.uint8) * np.uint8(255))[1].tobytes()


@pytest.fixture
def served():
    """A function that serves an application and gives its address."""
    servers = []

    def served(app):
        at = bind('127.0.0.1', 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level='error', lifespan='off'))
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[at]))
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f'http://127.0.0.1:{at.getsockname()[1]}'

    yield served
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join()
