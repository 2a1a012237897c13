"""A trained model at work: images in, verdicts out."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kgl_mm.errors import UsageError, check_number
from kgl_mm.inspection import Result, Source, Threshold, sources
from kgl_mm.inspection.exported_network import is_exported, open_network


class DefectInspector:
    """Inspects images with the model of a finished run, or with what ``tools/export.py`` made of it.

    ``inspector(images)`` takes a path, a folder, an array (gray, BGR or BGRA of 8 or 16 bits), or a list of these, and
    gives a list of :class:`~kgl_mm.inspection.Result` in their order; an iterator gives an iterator, which reads a
    batch at a time, as :meth:`stream` does with anything.

    Each image is looked at as the test of the run does it, so scores are those of ``tools/test.py``, but without
    priors, which new images have not. The threshold is the one in the checkpoint, else 0.5, not calibrated. The heat
    map is the segmentation of a guided model, that of a detector of good parts, else the evidence by LayerCAM.

    Args:
        work_dir_or_config: of a run, of one of its stages, or a config; a checkpoint that lies beside its config; or an
            exported file (.onnx, or .xml of OpenVINO), which needs neither torch nor the mm packages.
        checkpoint: a file or a directory; a config needs it.
        device: such as ``'cpu'`` or ``'cuda:1'``; by default a GPU where there is one.

    Example::

        inspector = DefectInspector('work_dirs/kgl_folder')
        for result in inspector('parts/today'):
            print(result.name, result.label, result.score, [region.box for region in result.regions])
    """

    def __init__(
        self, work_dir_or_config: Any, checkpoint: str | Path | None = None, device: str | None = None
    ) -> None:
        if is_exported(work_dir_or_config):
            if checkpoint is not None:
                raise UsageError(f'{work_dir_or_config}: has its weights in it; leave the checkpoint out')
            self.network = open_network(work_dir_or_config, device)
        else:
            from kgl_mm._require import require_mm

            require_mm()
            from .torch_network import TorchNetwork

            self.network = TorchNetwork(work_dir_or_config, checkpoint, device)
        self.judge = self.network.judge

    @property
    def classes(self) -> tuple[str, ...]:
        return self.judge.classes

    @property
    def threshold(self) -> Threshold | None:
        """None where no class is good. A number can be set instead of the one that the model brings."""
        return self.judge.threshold if self.judge.has_good else None

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not self.judge.has_good:
            raise UsageError(
                f'threshold={value}: none of the classes {", ".join(self.classes)} is good, so there is none'
            )
        check_number(0, 1, threshold=value)
        self.judge = replace(self.judge, threshold=Threshold(float(value), aim='given, not calibrated'))

    def __call__(self, images: Any, batch_size: int = 4) -> list[Result] | Iterator[Result]:
        found = self.stream(images, batch_size)
        return found if isinstance(images, Iterator) else list(found)

    def stream(
        self,
        images: Any,
        batch_size: int = 4,
        on_error: Callable[[Source, UsageError], None] | None = None,
    ) -> Iterator[Result]:
        """The results one after the other; no more than a batch of images is in memory at once.

        Args:
            images: see above.
            batch_size: images at once; only images that the network sees at one size share a batch.
            on_error: is told of an image that cannot be read, which is then left out; by default that is an error.
        """
        check_number(1, whole=True, batch_size=batch_size)
        return self._stream(sources(images), batch_size, on_error)

    def _stream(self, images: Iterator[Source], batch_size: int, on_error: Callable | None) -> Iterator[Result]:
        batch = []
        for source in images:
            try:
                image = source.read()
                size, seen = image.shape[1::-1], self.network.prepare(source, image)
            except UsageError as error:
                _tell(on_error, [source], error)
                continue
            if batch and (len(batch) == batch_size or self.network.shape(batch[-1][2]) != self.network.shape(seen)):
                yield from self._inspect(batch, on_error)
                batch = []
            batch.append((source, size, seen))
        if batch:
            yield from self._inspect(batch, on_error)

    def _inspect(self, batch: list[tuple], on_error: Callable | None) -> Iterator[Result]:
        try:
            found = self.network.run([seen for *_, seen in batch], [size for _, size, _ in batch])
        except UsageError as error:
            _tell(on_error, [source for source, *_ in batch], error)
            return
        for (source, size, _), (probabilities, heat) in zip(batch, found, strict=True):
            yield Result(source, size, probabilities, heat, self.judge)


def _tell(on_error: Callable | None, images: list[Source], error: UsageError) -> None:
    if on_error is None:
        raise error
    for source in images:
        on_error(source, error if str(error).startswith(source.name) else UsageError(f'{source.name}: {error}'))
