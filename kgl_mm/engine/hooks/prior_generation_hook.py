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
from kgl_mm.engine.checkpoint_io import tested_weights
from kgl_mm.errors import UsageError, first_line
from kgl_mm.priors.generation import as_tested, check_settings, generate
from kgl_mm.priors.sources import PriorSource, SaliencySource
from kgl_mm.priors.store import PriorStore
from kgl_mm.registry import HOOKS, PRIOR_SOURCES, SALIENCY
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
    stopped. The model is afterwards as it was. A training on good images alone (``num_positives=0``) leaves maps of the
    defective ones too, where there are any.

    Args:
        method: the source of the maps, or a saliency method, to which the model is added; by default the maps of a
            saliency method are normalised by evidence and averaged over all flips.
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

    @property
    def view(self) -> dict:
        """The saliency method that shows what a network sees: the one that makes the maps, where one does."""
        kind = self.method['type'].rpartition('.')[2]
        if kind == 'TeacherStudentSource':
            return dict(self.method, type='kgl_mm.AnomalyMap')
        if kind == 'SaliencySource':
            return self.method['method']
        return dict(type='kgl_mm.LayerCAM') if kind in PRIOR_SOURCES.module_dict else self.method

    def before_train(self, runner) -> None:
        """What is wrong shows before the training; the store of another one is put aside."""
        dataset = self._dataset(runner)
        refuse_what_does_not_stack(runner.train_dataloader)
        if self.batch_size > 1:
            refuse_several_sizes(dataset, 'set batch_size=1 of PriorGenerationHook')
        build_source(self.method, get_ori_model(runner.model)).check(dataset)
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
        with tested_weights(runner, model) as path:
            runner.logger.info(f'Writing priors by {path or "the weights as they are"}')
            store = PriorStore(Path(runner.work_dir, self.out))
            source = build_source(self.method, model)
            generate(source, dataset, store, **{'fit_on': self._seen(runner), **self.kwargs})
        sheet = Path(store.root, SHEET)
        if hasattr(runner.visualizer, 'add_contact_sheet') and sheet.exists():
            runner.visualizer.add_contact_sheet('priors', sheet.read_bytes())

    def _dataset(self, runner) -> BaseDataset:
        dataset = self._seen(runner)
        return of_all_kinds(dataset.left_out() if getattr(dataset, 'leave_out', None) else dataset)

    def _seen(self, runner) -> BaseDataset:
        return as_tested(runner.train_dataloader.dataset, self.pipeline or test_pipeline(runner.cfg))


def of_all_kinds(dataset: BaseDataset) -> BaseDataset:
    """With the defective images too, where a training on good ones alone leaves them out."""
    return dataset.with_defects() if getattr(dataset, 'num_positives', None) == 0 else dataset


def build_source(settings: dict, model: nn.Module | None) -> PriorSource:
    """A source of priors of its config: a registered one, or a saliency method."""
    kind = source_kind(settings)
    if kind is None:
        return SaliencySource(build_method(settings, model))
    if 'model' in inspect.signature(kind).parameters:
        settings = dict(settings, model=model)
    try:
        with DefaultScope.overwrite_default_scope('kgl_mm'):
            return PRIOR_SOURCES.build(dict(settings))
    except UsageError:
        raise
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f'method {settings["type"]}: {first_line(error)}') from error


def needs_model(settings: dict) -> bool:
    """Whether a source of this config looks with a trained network."""
    kind = source_kind(settings)
    return kind is None or kind.needs_model(settings)


def source_kind(settings: dict) -> type[PriorSource] | None:
    """The class of a source; None for a saliency method."""
    with DefaultScope.overwrite_default_scope('kgl_mm'):
        name = settings.get('type')
        kind = PRIOR_SOURCES.get(name) if isinstance(name, str) else name
    return kind if isinstance(kind, type) and issubclass(kind, PriorSource) else None


def build_method(settings: dict, model: nn.Module) -> SaliencyMethod:
    """A saliency method of its config, such as ``dict(type='kgl_mm.LayerCAM', fuse='mean')``, to make priors with."""
    name = settings.get('type')
    with DefaultScope.overwrite_default_scope('kgl_mm'):
        if isinstance(name, str) and SALIENCY.get(name) is None:
            raise UsageError(
                f'method {name}: not one of {", ".join([*SALIENCY.module_dict, *PRIOR_SOURCES.module_dict])}'
            )
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
