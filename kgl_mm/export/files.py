"""The files of an exported model: ONNX, and OpenVINO made of it."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import torch

import kgl_mm
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import hash_of

from .graph import EXAMPLE, OUTPUTS, Inspection, trace

OPSET = 18


def write_onnx(inspection: Inspection, facts: dict[str, str], path: Path) -> None:
    """The graph with its weights and metadata; what cannot be one raises whatever torch makes of it."""
    import onnx

    free = dict(zip(range(3), (torch.export.Dim(name) for name in ('number', 'height', 'width')), strict=True))
    names = OUTPUTS if inspection.method else OUTPUTS[:2]
    with _silence():
        program = torch.onnx.export(
            trace(inspection),
            (torch.zeros(EXAMPLE, dtype=torch.uint8),),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=['images'],
            output_names=list(names),
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    model.graph.ClearField('metadata_props')
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        node.ClearField('metadata_props')  # where in whose files each operation comes from
    fixed = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[:3] if not d.dim_param]
    if fixed:
        raise UsageError('the model computes with the number or size of images as plain numbers, so it has no graph')
    describe(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def describe(model, facts: dict[str, str]) -> None:
    """Set the metadata of an ONNX model."""
    import onnx

    model.producer_name, model.producer_version = 'kgl_mm', kgl_mm.__version__
    onnx.helper.set_model_props(model, facts)


def write_openvino(source: Path, facts: dict[str, str], path: Path) -> None:
    """An ONNX file as ``path`` (.xml) and the weights beside it (.bin)."""
    import openvino

    model = openvino.convert_model(str(source))
    for key, value in facts.items():
        model.set_rt_info(value, ['kgl_mm', key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def facts_of(network, inspection: Inspection) -> dict[str, str]:
    """What a file says of itself; lists and dicts as JSON."""
    judge = network.judge
    return dict(
        version=kgl_mm.__version__,
        classes=json.dumps(judge.classes),
        threshold=json.dumps(vars(judge.threshold) if judge.has_good else None),
        input='images: uint8, number x height x width x 3, BGR as cv2.imread gives it, of any size',
        size=json.dumps(inspection.scale),
        map=type(inspection.method).__name__ if inspection.method else 'none',
        checkpoint=hash_of(network.checkpoint),
        made_with=f'torch {torch.__version__}',
        precision='float32',
    )


@contextmanager
def _silence() -> Iterator[None]:
    """What the exporter says of its own progress, and of itself."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'torch.export', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def build(network, path: Path, with_map: bool = True) -> tuple[dict[str, str], str]:
    """Write a network as ONNX; its metadata, and why it has no map, where it should have one."""
    reason = ''
    inspection = Inspection(network)
    if not with_map:
        inspection.method, reason = None, 'it was not asked for'
    elif inspection.method is None:
        reason = 'the inspector has none either'
    while True:
        facts = facts_of(network, inspection)
        try:
            write_onnx(inspection, facts, path)
            return facts, reason
        except Exception as error:  # an operation that torch cannot trace or ONNX does not have
            if isinstance(error, UsageError) and inspection.method is None:
                raise
            if inspection.method is None:
                raise UsageError(f'this model has no ONNX graph ({first_line(error)})') from error
            inspection.method, reason = None, first_line(error)
