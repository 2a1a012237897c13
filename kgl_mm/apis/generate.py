"""Making priors from the command line: what ``tools/generate_priors.py`` does."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed, is_main_process
from mmengine.registry import DefaultScope

from kgl_mm.engine.checkpoint_io import use_safe_loading
from kgl_mm.engine.distributed import process_group
from kgl_mm.engine.hooks.prior_generation_hook import build_source, needs_model, of_all_kinds
from kgl_mm.engine.loading import hook_settings, load_dataset, load_model, load_preprocessor
from kgl_mm.engine.stages import find_checkpoint, stages_of
from kgl_mm.errors import UsageError
from kgl_mm.priors.generation import generate
from kgl_mm.priors.store import PriorStore
from kgl_mm.visualization import SHEET


def generate_priors(
    cfg: Config,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    method: dict | None = None,
    split: str = 'train',
    launcher: str = 'none',
    **kwargs,
) -> PriorStore:
    """Write the maps of a split by a checkpoint, by default into ``WORK_DIR/STAGE/priors``, as the hook does.

    Keys of ``method`` may have dots, as in ``{'network.type': 'ResNet'}``.
    A source that looks with no trained network, such as ``kgl_mm.FolderSource``, needs no checkpoint. What is not given
    is as the ``PriorGenerationHook`` of the config has it, where there is one.
    """
    use_safe_loading()
    path, (name, stage) = None, next(iter(stages_of(cfg).items()))
    if checkpoint is not None:
        path, name, stage = find_checkpoint(cfg, checkpoint)
    hook = hook_settings(stage)
    if method:
        kind = method.get('type', hook.method['type'])
        same = kind.split('.')[-1] == hook.method['type'].split('.')[-1]  # the settings of another do not fit
        merged = Config(dict(method=dict(hook.method) if same else {}))
        merged.merge_from_dict({f'method.{key}': value for key, value in method.items()} | {'method.type': kind})
        hook.method = merged.to_dict()['method']
    if path is None and needs_model(hook.method):
        raise UsageError(f'{hook.method["type"]}: looks with a trained network, so give its checkpoint')
    with DefaultScope.overwrite_default_scope(stage.get('default_scope', 'mmengine')), process_group(stage, launcher):
        if launcher != 'none' and not is_distributed():
            init_dist(launcher, **stage.get('env_cfg', {}).get('dist_cfg', {}))
        dataset = seen = load_dataset(stage, split, hook.pipeline)
        model = load_model(stage, path) if path else load_preprocessor(stage)
        store = PriorStore(out or Path(cfg.work_dir, name, hook.out))
        source = build_source(hook.method, model)
        if split == 'train':
            dataset = of_all_kinds(seen)
        elif source.learns:
            seen = load_dataset(stage, 'train', hook.pipeline)
        workers = (stage.get(f'{split}_dataloader') or stage.train_dataloader).get('num_workers', 0)
        generate(source, dataset, store, **{'num_workers': workers, 'fit_on': seen, **hook.kwargs, **kwargs})
        if is_main_process():
            print(f'written:\n  {store.root}\n  {Path(store.root, SHEET)}')
    return store
