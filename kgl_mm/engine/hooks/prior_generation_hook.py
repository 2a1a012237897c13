import copy
import inspect
import time
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmpretrain.utils import get_ori_model
from torch import nn

from kgl_mm.datasets.binding import refuse_several_sizes, refuse_what_does_not_stack
from kgl_mm.engine.checkpoint_io import load_from_file
from kgl_mm.engine.stages import latest_checkpoint
from kgl_mm.errors import UsageError, first_line
from kgl_mm.priors.generation import as_tested, check_settings, generate
from kgl_mm.priors.store import PriorStore
from kgl_mm.registry import HOOKS, SALIENCY
from kgl_mm.saliency import SaliencyMethod
from kgl_mm.visualization import SHEET

DEFAULTS = dict(normalize='evidence', flips=['h', 'v', 'hv'])
"""Of every method: maps that compare across images, averaged over flips, since a network may learn to answer beside
a defect, always on the same side."""


@HOOKS.register_module()
class PriorGenerationHook(Hook):
    """Writes the maps of the training images when the training has ended.

    They come from the best checkpoint where one is kept, else from the last one, else from the weights as they are,
    and are written as ``tools/generate_priors.py`` does it. A training that is resumed goes on with them where it was
    stopped. The model is afterwards as it was.

    Args:
        method: the saliency method, to which the model is added; by default its maps are normalised by evidence and
            averaged over all flips.
        out: the folder of the store; a relative one is inside the runner's work directory.
        pipeline: how to look at the images; by default as the test does.
        **kwargs: as for :func:`~kgl_mm.priors.generation.generate`.

    Example::

        custom_hooks = [dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.LayerCAM'))]
    """

    priority = 'LOWEST'

    def __init__(
        self,
        method: dict = dict(type='kgl_mm.LayerCAM'),  # noqa: B006
        out: str = 'priors',
        pipeline: list | None = None,
        **kwargs,
    ) -> None:
        try:
            bound = inspect.signature(generate).bind(None, None, None, **kwargs)
        except TypeError as error:
            raise UsageError(f'PriorGenerationHook: {first_line(error)}') from error
        check_settings(**kwargs)
        bound.apply_defaults()
        self.batch_size = bound.arguments['batch_size']
        self.method = method
        self.out = out
        self.pipeline = pipeline
        self.kwargs = kwargs

    def before_train(self, runner) -> None:
        """What is wrong shows before the training; the store of another one is put aside."""
        dataset = self._dataset(runner)
        refuse_what_does_not_stack(runner.train_dataloader)
        if self.batch_size > 1:
            refuse_several_sizes(dataset, 'set batch_size=1 of PriorGenerationHook')
        build_method(self.method, get_ori_model(runner.model))
        store = Path(runner.work_dir, self.out)
        if not runner._resume:
            barrier()  # every process has looked before the first one changes what is there
            if is_main_process() and store.exists():
                aside = store.with_name(f'{store.name}-{time.strftime("%Y%m%d-%H%M%S")}')
                store.rename(aside)
                runner.logger.info(f'The priors of an earlier training are now in {aside}.')
            barrier()

    def after_train(self, runner) -> None:
        barrier()  # the last checkpoint is whole, so that all processes take the same one
        model = get_ori_model(runner.model)
        dataset = self._dataset(runner)
        kept = copy.deepcopy(model.state_dict())
        path = _checkpoint(runner)
        runner.logger.info(f'Writing priors by {path or "the weights as they are"}')
        try:
            if path:
                model.load_state_dict(load_from_file(str(path), map_location='cpu')['state_dict'])
            store = PriorStore(Path(runner.work_dir, self.out))
            generate(build_method(self.method, model), dataset, store, **self.kwargs)
        finally:
            model.load_state_dict(kept)
        sheet = Path(store.root, SHEET)
        if hasattr(runner.visualizer, 'add_contact_sheet') and sheet.exists():
            runner.visualizer.add_contact_sheet('priors', sheet.read_bytes())

    def _dataset(self, runner) -> BaseDataset:
        dataset = as_tested(runner.train_dataloader.dataset, self.pipeline or test_pipeline(runner.cfg))
        return dataset.left_out() if getattr(dataset, 'leave_out', None) else dataset


def build_method(settings: dict, model: nn.Module) -> SaliencyMethod:
    """A saliency method of its config, such as ``dict(type='kgl_mm.LayerCAM', fuse='mean')``, to make priors with."""
    name = settings.get('type')
    with DefaultScope.overwrite_default_scope('kgl_mm'):
        if isinstance(name, str) and SALIENCY.get(name) is None:
            raise UsageError(f'method {name}: not one of {", ".join(SALIENCY.module_dict)}')
        try:
            return SALIENCY.build({**DEFAULTS, **settings, 'model': model})
        except UsageError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f'method {name}: {first_line(error)}') from error


def test_pipeline(cfg) -> list:
    """The transforms of the test's data set, or of the validation's."""
    for part in ('test', 'val'):
        loader = cfg.get(f'{part}_dataloader')
        while loader and 'dataset' in loader:
            loader = loader['dataset']
        if loader and 'pipeline' in loader:
            return list(loader['pipeline'])
    raise UsageError('priors: there is no pipeline of a test to look at the images with; pass pipeline=[...]')


def _checkpoint(runner) -> Path | None:
    """The best one (by the first of several metrics), as it is named or in the work directory; else the last one."""
    known = runner.message_hub.runtime_info
    best = next((known[key] for key in sorted(known) if key.startswith('best_ckpt') and known[key]), None)
    for path in (Path(best), Path(runner.work_dir, Path(best).name)) if best else ():
        if path.is_file():
            return path
    return latest_checkpoint(Path(runner.work_dir))
