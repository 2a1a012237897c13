"""Testing a checkpoint from the command line: what ``tools/test.py`` does."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmpretrain.utils import get_ori_model
from torch import nn

from kgl_mm.engine.checkpoint_io import load_from_file, use_safe_loading
from kgl_mm.engine.distributed import process_group
from kgl_mm.engine.run import build_runner, record_in
from kgl_mm.engine.stages import find_checkpoint
from kgl_mm.errors import UsageError
from kgl_mm.files import read_json
from kgl_mm.report import try_report

from .train import summary


def evaluate(cfg: Config, checkpoint: str | Path, launcher: str = 'none') -> dict:
    """Test a checkpoint, or that of a stage's directory, and write what was found into ``cfg.work_dir``."""
    use_safe_loading()
    path, name, stage = find_checkpoint(cfg, checkpoint)
    if not stage.get('test_dataloader'):
        raise UsageError(f'{cfg.filename}: has no test_dataloader')
    root = Path(cfg.work_dir)
    record_in(stage, name, root)
    stage.work_dir = str(root / name)
    stage.resume, stage.load_from = False, str(path)
    for part in ('train', 'val'):
        for field in ('dataloader', 'cfg', 'evaluator'):
            stage.pop(f'{part}_{field}', None)
    stage.optim_wrapper = stage.param_scheduler = None
    with process_group(stage, launcher):
        runner = build_runner(stage)
        refuse_other_weights(get_ori_model(runner.model), path)
        runner.test()
        barrier()
        metrics = read_json(root / 'metrics.json')
        if is_main_process():
            try_report(root)
            print(summary({name: {'test': metrics[name]['test']}}, root))
    return metrics


def refuse_other_weights(model: nn.Module, checkpoint: Path) -> None:
    """Say it where a model would be tested with weights of its own instead, of which mmengine only warns."""
    saved = load_from_file(str(checkpoint), map_location='meta')  # shapes alone: the weights are read once, later
    saved = {name.removeprefix('module.'): value for name, value in saved.get('state_dict', saved).items()}
    for name, value in model.state_dict().items():
        shape = tuple(saved[name].shape) if name in saved else 'lacking'
        if shape != tuple(value.shape):
            raise UsageError(
                f'{checkpoint}: not of this model, whose {name} has shape {tuple(value.shape)}; there it is {shape}'
            )
