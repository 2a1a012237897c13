"""Making priors from the command line: what ``tools/generate_priors.py`` does."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.registry import DATASETS, MODELS, DefaultScope

from kgl_mm.engine.checkpoint_io import load_from_file, use_safe_loading
from kgl_mm.engine.config import innermost
from kgl_mm.engine.distributed import process_group
from kgl_mm.engine.hooks.prior_generation_hook import PriorGenerationHook, build_method, test_pipeline
from kgl_mm.engine.stages import find_checkpoint, writer
from kgl_mm.errors import UsageError, first_line
from kgl_mm.priors.generation import as_tested, generate
from kgl_mm.priors.store import PriorStore
from kgl_mm.visualization import SHEET


def generate_priors(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path | None = None,
    method: dict | None = None,
    split: str = 'train',
    launcher: str = 'none',
    **kwargs,
) -> PriorStore:
    """Write the maps of a split by a checkpoint, by default into ``WORK_DIR/STAGE/priors``, as the hook does.

    What is not given is as the ``PriorGenerationHook`` of the config has it, where there is one.
    """
    use_safe_loading()
    path, name, stage = find_checkpoint(cfg, checkpoint)
    hook = hook_settings(stage)
    if method:
        kind = method.get('type', hook.method['type'])
        same = kind.split('.')[-1] == hook.method['type'].split('.')[-1]  # the settings of another do not fit
        hook.method = {**(hook.method if same else {}), **method, 'type': kind}
    with DefaultScope.overwrite_default_scope(stage.get('default_scope', 'mmengine')), process_group(stage, launcher):
        if launcher != 'none' and not is_distributed():
            init_dist(launcher, **stage.get('env_cfg', {}).get('dist_cfg', {}))
        dataset = load_dataset(stage, split, hook.pipeline)
        model = load_model(stage, path)
        store = PriorStore(out or Path(cfg.work_dir, name, hook.out))
        saliency = build_method(hook.method, model)
        workers = (stage.get(f'{split}_dataloader') or stage.train_dataloader).get('num_workers', 0)
        generate(saliency, dataset, store, **{'num_workers': workers, **hook.kwargs, **kwargs})
        if is_main_process():
            print(f'written:\n  {store.root}\n  {Path(store.root, SHEET)}')
    return store


def hook_settings(cfg: Config) -> PriorGenerationHook:
    """The ``PriorGenerationHook`` that a config has, or one by default."""
    settings = {key: value for key, value in (writer(cfg) or {}).items() if key not in ('type', 'priority')}
    return PriorGenerationHook(**settings)


def load_dataset(cfg: Config, split: str, pipeline: list | None = None) -> BaseDataset:
    """The images of a split, as the test looks at them."""
    loader = cfg.get(f'{split}_dataloader') or (split == 'val' and cfg.get('train_dataloader'))
    settings = dict(innermost(loader.dataset)) if loader else {}
    if not loader or (split == 'val' and not cfg.get('val_dataloader') and 'split' not in settings):
        raise UsageError(f'{cfg.filename}: has no {split}_dataloader')
    if split == 'val' and not cfg.get('val_dataloader'):
        settings['split'] = split
    if 'cache' in settings:
        settings['cache'] = None
    settings['pipeline'] = pipeline or test_pipeline(cfg)
    try:
        return as_tested(DATASETS.build(settings), settings['pipeline'])
    except (KeyError, TypeError, FileNotFoundError) as error:
        raise UsageError(f'{cfg.filename}: {first_line(error)}') from error


def load_model(
    cfg: Config, checkpoint: Path, saved: dict | None = None, device: torch.device | None = None
) -> torch.nn.Module:
    """The model of a config with the weights of a checkpoint, by default on a GPU where there is one.

    ``saved`` is what the checkpoint holds, where it was read before.
    """
    settings = dict(cfg.model)
    if cfg.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(settings)
    saved = saved or load_from_file(str(checkpoint), map_location='cpu')
    try:
        model.load_state_dict(saved.get('state_dict', saved))
    except (RuntimeError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UsageError(f'{checkpoint}: not a checkpoint of this model ({reason})') from error
    return model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
