from collections.abc import Callable

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.utils import get_ori_model

from kgl_mm.datasets.binding import refuse_several_sizes
from kgl_mm.engine.hooks.prior_generation_hook import test_pipeline
from kgl_mm.engine.hooks.safe_checkpoint_hook import val_interval_at
from kgl_mm.errors import UsageError, check_number
from kgl_mm.priors.generation import as_tested
from kgl_mm.priors.sources import calibrate, standardize
from kgl_mm.registry import HOOKS


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Scales the features, scores and maps of a detector by its good training images, seen as the test sees them.

    Features are scaled before the training, since the teacher is what it is; scores and maps at the end of each epoch
    that is validated or saved, before that happens, so that every checkpoint has the scales that belong to its weights,
    whatever was killed or resumed.

    Args:
        pipeline: how to look at the images; by default as the test does.
        batch_size: images at once; by default as many as in training.

    Example::

        custom_hooks = [dict(type='kgl_mm.CalibrationHook')]
    """

    priority = 'LOW'  # after the statistics of all processes are averaged, before the checkpoint

    def __init__(self, pipeline: list | None = None, batch_size: int | None = None) -> None:
        check_number(1, whole=True, none='that of the training', batch_size=batch_size)
        self.pipeline = pipeline
        self.batch_size = batch_size

    def before_train(self, runner) -> None:
        model = get_ori_model(runner.model)
        if not hasattr(getattr(model, 'head', None), 'calibrate'):
            raise UsageError(f'CalibrationHook: {type(model).__name__} has no head that can be calibrated; remove it')
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise UsageError('CalibrationHook: scales belong to the end of an epoch; set train_cfg.by_epoch=True')
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UsageError(
                'CalibrationHook: averaged weights would be saved with the scales of others; remove EMAHook'
            )
        self.dataset = as_tested(runner.train_dataloader.dataset, self.pipeline or test_pipeline(runner.cfg))
        if self._batch_size(runner) > 1:
            refuse_several_sizes(self.dataset, 'set batch_size=1 of CalibrationHook')
        if getattr(model, 'standardize', False):
            self._scale(standardize, runner)

    def after_train_epoch(self, runner) -> None:
        if self._is_due(runner):
            self._scale(calibrate, runner)

    def _scale(self, by: Callable, runner) -> None:
        by(get_ori_model(runner.model), self.dataset, self._batch_size(runner), runner.train_dataloader.num_workers)

    def _batch_size(self, runner) -> int:
        return self.batch_size or runner.train_dataloader.batch_size or 1

    def _is_due(self, runner) -> bool:
        done, val = runner.epoch + 1, runner.val_loop and runner.train_loop
        if self.is_last_train_epoch(runner) or (
            val and done >= val.val_begin and done % val_interval_at(val, done) == 0
        ):
            return True
        saving = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        return any(hook.every_n_epochs(runner, hook.interval, hook.save_begin) for hook in saving)
