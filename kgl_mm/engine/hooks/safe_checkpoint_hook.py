from bisect import bisect
from pathlib import Path

from mmengine.dist import all_reduce_params, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from kgl_mm.engine.checkpoint_io import histories_from_plain, to_plain
from kgl_mm.registry import HOOKS


def val_interval_at(loop: BaseLoop, done: int) -> int:
    """How often validation comes when so many epochs or iterations are done, which the loop itself decides later."""
    return loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, such that a kill at any moment loses nothing and mixes nothing.

    A checkpoint is written to a temporary file, synced and renamed; then the pointer ``last_checkpoint``; what is
    outdated is deleted last. Files hold plain types and tensors only. Where validation follows an epoch (or iteration,
    if they are what is counted), the checkpoint is saved after it, so that the threshold chosen there travels with the
    weights it belongs to. Buffers, such as the statistics of batch norm, are averaged over all processes before.

    Args:
        **kwargs: as for ``CheckpointHook``, except ``backend_args``.

    Example::

        default_hooks = dict(checkpoint=dict(type='kgl_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=2))
    """

    _default_greater_keys = [*CheckpointHook._default_greater_keys, 'AP', 'F1', 'recall']

    def __init__(self, **kwargs) -> None:
        super().__init__(backend_args=dict(backend='kgl_atomic'), **kwargs)
        self._is_training = False  # a validation may stand alone

    def before_train(self, runner) -> None:
        if not runner._resume:
            runner.message_hub.runtime_info.pop('threshold', None)
        super().before_train(runner)
        self._is_training = True
        if is_main_process():
            for left in Path(self.out_dir).glob('.*.tmp'):  # by a kill in the middle of a write
                left.unlink()

    def after_train_epoch(self, runner) -> None:
        if self.by_epoch and not self._validation_follows(runner, runner.epoch + 1):
            runner.message_hub.runtime_info.pop('threshold', None)
            super().after_train_epoch(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if not self.by_epoch and not self._validation_follows(runner, runner.iter + 1):
            runner.message_hub.runtime_info.pop('threshold', None)
            super().after_train_iter(runner, *args, **kwargs)

    def after_train(self, runner) -> None:
        super().after_train(runner)
        self._is_training = False

    def after_val_epoch(self, runner, metrics=None) -> None:
        metrics = metrics or {}
        if 'chosen_threshold' in metrics:
            aim = next(metric.aim for metric in runner.val_evaluator.metrics if getattr(metric, 'aim', None))
            threshold = dict(value=metrics['chosen_threshold'], aim=aim, calibrated=True)
            runner.message_hub.update_info('threshold', threshold)
        if not self._is_training:
            return
        if self.save_best and 'auto' not in self.key_indicators:
            missing = [key for key in self.key_indicators if key not in metrics]
            if missing:
                runner.logger.warning(f'No best checkpoint: validation gave no {", ".join(missing)}.')
                metrics = {}
        if metrics:
            super().after_val_epoch(runner, metrics)
        if not self._counts_as(runner.train_loop):
            return
        # the loop has counted this epoch or iteration already
        done, last = (runner.epoch, runner.max_epochs) if self.by_epoch else (runner.iter, runner.max_iters)
        due = done >= self.save_begin and self.interval > 0 and (done - self.save_begin) % self.interval == 0
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(done))
        saved = self.last_ckpt == path  # together with the best one
        if not saved and (due or (self.save_last and done == last)):
            runner.logger.info(f'Saving checkpoint at {done} {"epochs" if self.by_epoch else "iterations"}')
            self._save_checkpoint_with_step(runner, done, dict(epoch=runner.epoch, iter=runner.iter))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        for key in set(checkpoint) - {'state_dict'}:
            checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub')
        runner.message_hub.runtime_info.pop('threshold', None)
        if not isinstance(hub, dict):
            return
        hub['log_scalars'] = histories_from_plain(hub.get('log_scalars', {}))
        threshold = hub.get('runtime_info', {}).get('threshold')
        if threshold:
            runner.message_hub.update_info('threshold', threshold)

    def _counts_as(self, loop: BaseLoop) -> bool:
        return isinstance(loop, EpochBasedTrainLoop if self.by_epoch else IterBasedTrainLoop)

    def _validation_follows(self, runner, done: int) -> bool:
        loop = runner.train_loop
        return (
            self._counts_as(loop)
            and runner.val_loop is not None
            and done >= loop.val_begin
            and (
                done % val_interval_at(loop, done) == 0
                or done == (loop.max_epochs if self.by_epoch else loop.max_iters)
            )
        )

    def _save_best_checkpoint(self, runner, metrics) -> None:
        with self.file_backend.removals_last():
            super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        all_reduce_params(runner.model.buffers(), op='mean')  # nothing to do in one process
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        with self.file_backend.removals_last():
            self.file_backend.put_text(self.last_ckpt, self.file_backend.join_path(runner.work_dir, 'last_checkpoint'))
            for old in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
