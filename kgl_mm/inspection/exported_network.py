"""The network of an inspector as ``tools/export.py`` wrote it: neither torch nor the mm packages are needed."""

import json
from pathlib import Path

import numpy as np

from kgl_mm.errors import UsageError, first_line
from kgl_mm.evaluation.functional import event_probability

from .images import Source
from .result import Judge, Threshold

SUFFIXES = ('.onnx', '.xml')


def is_exported(path) -> bool:
    return isinstance(path, str | Path) and Path(path).suffix in SUFFIXES


class ExportedNetwork:
    """What an inspector asks of a network, of a file; a subclass says how its runtime reads and runs it.

    Args:
        path: of the file.
        device: ``'cpu'``, or what else the runtime knows; by default a GPU where the runtime has one.
    """

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UsageError(f'{path}: no such file')
        try:
            facts = self.open(device)
        except ModuleNotFoundError as error:
            raise UsageError(f'{path}: needs {error.name}; pip install {error.name}') from None
        except UsageError:
            raise
        except Exception as error:  # whatever a runtime makes of a file that is cut short, or none of its own
            raise UsageError(f'{path}: not a model that runs here ({first_line(error)})') from error
        if 'classes' not in facts or 'threshold' not in facts:
            raise UsageError(f'{path}: not written by tools/export.py, since it does not say its classes')
        threshold = json.loads(facts['threshold'])
        self.facts = facts
        self.judge = Judge(
            tuple(json.loads(facts['classes'])), threshold is not None, Threshold(**threshold) if threshold else None
        )

    def open(self, device: str | None) -> dict[str, str]:
        """Make it ready to run; what its metadata say."""
        raise NotImplementedError

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name of images N x H x W x 3."""
        raise NotImplementedError

    def prepare(self, source: Source, image: np.ndarray) -> np.ndarray:
        """The image itself, since the graph does the rest."""
        return image

    @staticmethod
    def shape(seen: np.ndarray) -> tuple[int, ...]:
        return seen.shape

    def run(
        self, batch: list[np.ndarray], sizes: list[tuple[int, int]]
    ) -> list[tuple[tuple[float, ...], np.ndarray | None]]:
        """Probabilities and map of each image."""
        try:
            found = self.infer(np.stack(batch))
        except Exception as error:  # too small for its strides, or too large for the memory
            size = '{} x {}'.format(*sizes[0])
            raise UsageError(f'the network cannot take images of {size} pixels ({first_line(error)})') from error
        probabilities = found['probabilities'].astype(float)
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
            raise UsageError(f'{self.path}: gives no probabilities; the training may have diverged')
        scores = event_probability(probabilities) if self.judge.has_good else probabilities.max(1)
        if not np.allclose(scores, found['score'], rtol=0, atol=1e-6):
            raise UsageError(f'{self.path}: its scores are not those of its probabilities')
        maps = found.get('map', [None] * len(batch))
        return [(tuple(row), heat) for row, heat in zip(probabilities.tolist(), maps, strict=True)]


class OnnxNetwork(ExportedNetwork):
    def open(self, device: str | None) -> dict[str, str]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # a size that the network cannot take is an error of ours
        providers = ['CPUExecutionProvider']
        has_gpu = 'CUDAExecutionProvider' in onnxruntime.get_available_providers()
        kind, _, index = (device or 'cpu').partition(':')
        if kind not in ('cpu', 'cuda') or (kind == 'cuda' and not has_gpu):
            raise UsageError(f'device={device!r}: not there for this onnxruntime; use cpu')
        if kind == 'cuda' or (device is None and has_gpu):
            providers.insert(0, ('CUDAExecutionProvider', dict(device_id=int(index or 0), use_tf32=0)))
        self.session = onnxruntime.InferenceSession(str(self.path), options, providers)
        self.names = [output.name for output in self.session.get_outputs()]
        return self.session.get_modelmeta().custom_metadata_map

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.names, self.session.run(None, dict(images=images)), strict=True))


class OpenVinoNetwork(ExportedNetwork):
    def open(self, device: str | None) -> dict[str, str]:
        import openvino

        core = openvino.Core()
        model = core.read_model(self.path)
        # its default on some processors is bfloat16, which is no longer what was trained
        self.model = core.compile_model(model, (device or 'cpu').upper(), dict(INFERENCE_PRECISION_HINT='f32'))
        self.names = [output.get_any_name() for output in self.model.outputs]
        facts = model.get_rt_info(['kgl_mm']).astype(dict) if model.has_rt_info(['kgl_mm']) else {}
        return {key: str(getattr(value, 'value', value)) for key, value in facts.items()}

    def infer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = self.model(dict(images=images))
        return {name: np.array(found[name]) for name in self.names}


def open_network(path: str | Path, device: str | None = None) -> ExportedNetwork:
    """The network in a file, by its suffix."""
    return (OnnxNetwork if Path(path).suffix == '.onnx' else OpenVinoNetwork)(path, device)
