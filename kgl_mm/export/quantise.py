"""INT8 by onnxruntime's own quantiser."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kgl_mm.inspection import sources

from .files import describe

MOST = 64
"""Images to calibrate with, half of them defective where there are as many."""
KINDS = ['Conv', 'Gemm', 'MatMul']


def quantise(source: Path, facts: dict[str, str], path: Path, images: Sequence[str]) -> None:
    """An ONNX file with its convolutions and products in 8 bits, the ranges as these images need them.

    What comes before the first of them, the preprocessing, stays as it is.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(sources(images))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return image and dict(images=image.read()[None])

    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder, 'fused.onnx')
        quant_pre_process(str(source), str(fused), skip_symbolic_shape=True)
        quantize_static(
            str(fused),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=KINDS,
            per_channel=True,
            reduce_range=True,  # processors without VNNI would overflow
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(path)
    describe(model, dict(facts, precision='int8'))
    onnx.save(model, path)


def calibration(paths: Sequence[str], labels: Sequence[int], most: int = MOST) -> list[str]:
    """Images to calibrate with: defective and good ones in turn, spread over what there is."""
    kinds = [[p for p, label in zip(paths, labels, strict=True) if bool(label) == defective] for defective in (1, 0)]
    chosen = []
    for kind, others in zip(kinds, kinds[::-1], strict=True):
        number = min(len(kind), max(most // 2, most - len(others)))
        chosen += [kind[place] for place in np.linspace(0, len(kind) - 1, number).round().astype(int)]
    return chosen
