"""Training from the command line: what ``tools/train.py`` does."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.registry import DefaultScope

from kgl_mm.engine.config import without_validation
from kgl_mm.engine.distributed import process_group
from kgl_mm.engine.run import put_aside, run_stages
from kgl_mm.engine.stages import latest_checkpoint, stages_of, writer
from kgl_mm.engine.work_dir import first_is_better
from kgl_mm.errors import UsageError
from kgl_mm.evaluation.thresholds import origin
from kgl_mm.files import alone_in, read_json, write_atomically, write_json
from kgl_mm.report import try_report
from kgl_mm.visualization import SHEET

from .compare import PICTURE, compare_stages


def train(
    cfg: Config,
    resume: bool | str = False,
    amp: bool = False,
    validate: bool = True,
    launcher: str = 'none',
    stage: str | None = None,
    priors: str | Path | None = None,
) -> dict:
    """Run the stages of ``cfg`` and report what came out; ``resume`` may name the checkpoint to go on from.

    ``stage`` and ``priors`` are as in :func:`~kgl_mm.engine.run.run_stages`.
    """
    if amp:
        use_amp(cfg)
    if not validate:
        without_validation(cfg)
    with process_group(cfg, launcher):
        if isinstance(resume, str):
            if is_main_process():
                with alone_in(cfg.work_dir):
                    _resume_from(cfg, Path(resume))
            barrier()
        try:
            metrics = run_stages(cfg, bool(resume), stage, priors)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_where_to_resume(cfg)) from None
        if is_main_process():
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
                compare_stages(cfg)
            try_report(cfg.work_dir)
            in_order = {name: metrics[name] for name in stages_of(cfg) if name in metrics}
            print(summary(in_order, Path(cfg.work_dir)))
    return metrics


def use_amp(cfg: Config) -> None:
    """Mixed precision: mmengine's wrapper on a GPU, bfloat16 on the CPU."""
    import torch

    wrapper = cfg.optim_wrapper
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        wrapper.type = 'kgl_mm.Bf16OptimWrapper'


def summary(metrics: dict, work_dir: Path) -> str:
    """What came out, in a few lines that name the files."""
    lines = []
    for stage, splits in metrics.items():
        for split, found in splits.items():
            if 'AP' in found:
                name = f'{stage} {split} AP'
                interval = f' ({found["AP_low"]:.3f} to {found["AP_high"]:.3f})' if 'AP_low' in found else ''
                lines.append(f'{name:<18} {found["AP"]:.3f}{interval}, {found["num_images"]} images')
                kind = origin(found['threshold_calibrated'], found.get('threshold_aim'))
                wrong = f'{found["FP"]} false alarms, {found["FN"]} misses'
                lines.append(f'{"":<18} {wrong} at threshold {found["threshold"]:.3f} ({kind})')
            elif 'macro_AP' in found:
                lines.append(f'{stage} {split} macro AP {found["macro_AP"]:.3f}, {found["num_images"]} images')
            elif 'mAP_50' in found:
                what = f'{found["num_boxes"]} boxes in {found["num_images"]} images'
                lines.append(f'{stage} {split} mAP@.5 {found["mAP_50"]:.3f}, mAP@.5:.95 {found["mAP"]:.3f}, {what}')
    if better := first_is_better(metrics, read_json(work_dir / 'state.json').get('best')):
        lines.append(f'{better} To inspect with it, name its directory in {work_dir}.')
    found = (path for pattern in ('*', '*/*', f'*/*/{SHEET}') for path in sorted(work_dir.glob(pattern)))
    written = [path for path in found if _is_result(path)]
    return '\n'.join([*lines, 'written:', *(f'  {path}' for path in written)])


def _is_result(path: Path) -> bool:
    if any(parent.name.startswith('previous-') for parent in path.parents):
        return False
    return path.name == 'metrics.json' or path.suffix in ('.png', '.csv', '.pth', '.html')


def _resume_from(cfg: Config, checkpoint: Path) -> None:
    """Make ``checkpoint`` the one that its stage goes on from."""
    if not checkpoint.is_file():
        raise UsageError(f'--resume {checkpoint}: no such checkpoint')
    folder = checkpoint.resolve().parent
    names = list(stages_of(cfg))
    if folder.parent != Path(cfg.work_dir).resolve() or folder.name not in names:
        places = ' or '.join(f'{cfg.work_dir}/{name}' for name in names)
        raise UsageError(f'--resume {checkpoint}: not a checkpoint of this run, whose are in {places}')
    root = Path(cfg.work_dir)
    later = names[names.index(folder.name) + 1 :]
    old = read_json(root / 'state.json')
    stages = {name: done for name, done in old.get('stages', {}).items() if name not in later}
    if folder.name in stages:
        stages[folder.name] = {key: value for key, value in stages[folder.name].items() if key != 'done'}
    # first, so that what a kill leaves half moved is known to be old
    write_json(root / 'state.json', dict(stages=stages))
    # what was made of the weights as they became then is not what they will become now
    made = [root / folder.name / (writer(stages_of(cfg)[folder.name]) or {}).get('out', 'priors'), root / PICTURE]
    put_aside(root, [*made, *(root / name for name in later)], old)
    write_atomically(folder / 'last_checkpoint', str(checkpoint.resolve()).encode())


def _where_to_resume(cfg: Config) -> str:
    for name in reversed(list(stages_of(cfg))):
        checkpoint = latest_checkpoint(Path(cfg.work_dir, name))
        if checkpoint:
            return f'the same command with --resume goes on from {checkpoint}'
    return 'no checkpoint was written yet, so the same command begins anew'
