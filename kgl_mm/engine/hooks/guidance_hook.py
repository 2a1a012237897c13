from pathlib import Path

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.utils import get_ori_model

from kgl_mm.datasets.binding import binarizers, bind_priors, has_good_class, refuse_what_does_not_stack
from kgl_mm.datasets.transforms import LoadPrior
from kgl_mm.errors import UsageError, check_choice
from kgl_mm.files import read_json
from kgl_mm.priors.judgement import Judgement, judge
from kgl_mm.priors.sources.base import is_judged_by_skill
from kgl_mm.registry import HOOKS


@HOOKS.register_module()
class GuidanceHook(Hook):
    r"""Guides a training by priors: checks them and judges their source, then lets the guidance fade.

    Before training it makes sure that the priors belong to these images and move with them, and that nothing mixes
    images. A source that has not learned enough (see :mod:`kgl_mm.priors.judgement`) is said so, and its targets count
    by the trust in it, down to 0, where its priors are emptied too: then the head trains as without any. Real masks and
    what a person painted count fully. Checkpoints carry the trust, so that priors in the pipeline of a validation or a
    test are emptied as they were in training.

    Before each epoch t of T it sets ``guidance`` of each loss that has it to :math:`\lambda(t) = 1 - t/T`, or to 1
    where the ``decay`` of the loss is ``'constant'``. In a loop that counts iterations, t is the iteration.
    It depends on nothing else, so that it is right after a resume; the log has it as ``lambda``, and where losses
    differ in decay as one ``lambda_NAME`` for each, NAME being the module it belongs to, such as ``head``.

    Args:
        insist: whether to trust the priors whatever their source has learned.

    Example::

        custom_hooks = [dict(type='kgl_mm.GuidanceHook')]
    """

    def __init__(self, insist: bool = False) -> None:
        check_choice((True, False), insist=insist)
        self.insist = insist
        self.trust = 1.0

    def before_train(self, runner) -> None:
        refuse_what_moves_batches(runner.model)
        self.trust = 1.0  # whatever a checkpoint that this training starts from has said
        loaders = bind_priors(runner.train_dataloader.dataset)
        if loaders:
            refuse_what_does_not_stack(runner.train_dataloader)
        if not self._losses(runner):
            raise UsageError(
                f'GuidanceHook: nothing in {type(get_ori_model(runner.model)).__name__} takes guidance; use '
                'kgl_mm.KnowledgeInjectionHead or a loss of kgl_mm, or remove the hook'
            )
        if loaders and not self.insist:
            found = judge_source(runner.train_dataloader.dataset, loaders[0])
            self.trust = found.weight
            if found.weak:
                runner.logger.warning(
                    f'The source of the priors is weak: {found.reason}; they guide with weight {found.weight:.2f}. '
                    'Train stage 1 longer or with max pooling, paint five maps and use --priors, or insist '
                    '(GuidanceHook(insist=True)).'
                )
            else:
                runner.logger.info(f'The source of the priors: {found.reason}.')
        runner.message_hub.update_info('trust', self.trust)
        for loader in loaders:
            loader.muted = not self.trust
            self._refuse_a_channel_that_tells(runner, loader)
        for target in binarizers(runner.train_dataloader.dataset):
            target.trust = self.trust
        begin_workers_anew(runner)
        self._set(runner)

    @staticmethod
    def _refuse_a_channel_that_tells(runner, loader: LoadPrior) -> None:
        """People paint defective images alone; a channel that is empty where nobody painted would be the label."""
        channel = getattr(getattr(get_ori_model(runner.model), 'head', None), 'channel', 'none')
        if loader.missing == 'empty' and channel != 'none' and loader.lacks:
            raise UsageError(
                f"channel={channel!r} with missing='empty': {loader.lacks} images have no map, and a channel that is "
                "empty there would tell the label; set channel='none', or write a map for every image"
            )

    def before_train_epoch(self, runner) -> None:
        self._set(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._set(runner)

    def _set(self, runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            progress = runner.epoch / runner.max_epochs
        else:
            progress = runner.iter / runner.max_iters
        losses = self._losses(runner)
        several = len({loss.decay for loss in losses.values()}) > 1
        for name, loss in losses.items():
            weight = 1 - progress if loss.decay == 'linear' else 1.0
            loss.guidance = weight
            runner.message_hub.update_scalar(f'train/lambda_{name}' if several else 'train/lambda', weight)

    @staticmethod
    def _losses(runner) -> dict:
        """By the name of the module that each belongs to."""
        modules = get_ori_model(runner.model).named_modules()
        return {name.removesuffix('.loss_module'): module for name, module in modules if hasattr(module, 'guidance')}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub')
        if isinstance(hub, dict):
            self.trust = hub.get('runtime_info', {}).get('trust', 1.0)

    def before_val(self, runner) -> None:
        self._mute(runner.val_dataloader.dataset)

    def before_test(self, runner) -> None:
        self._mute(runner.test_dataloader.dataset)

    def _mute(self, dataset) -> None:
        for loader in bind_priors(dataset):
            loader.muted = not self.trust


def begin_workers_anew(runner) -> None:
    """In a loop that counts iterations workers have begun before the priors were bound."""
    iterator, loader = getattr(runner.train_loop, 'dataloader_iterator', None), runner.train_dataloader
    if getattr(iterator, '_iterator', None) is not None:
        # torch would go on with persistent workers, and all iterators of a sampler share what ends with the first
        iterator._iterator = loader._iterator = None
        if isinstance(loader.sampler, InfiniteSampler):
            loader.sampler.indices = loader.sampler._indices_of_rank()
        iterator._iterator = iter(loader)


def judge_source(dataset, loader: LoadPrior) -> Judgement:
    """Judge the source of the priors of a data set, by its stage's validation where there was one."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    entries, labels, stores = [], [], {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found = loader.find(info['img_path'])
        if found:
            store, key = found
            stores[Path(store.root)] = store
            entries.append(store.entry(key, loader.layer))
            labels.append(bool(info['gt_label']) or not has_good_class(dataset))
    validation = None
    if len(stores) == 1:
        stage = next(iter(stores)).parent
        validation = read_json(stage.parent / 'metrics.json').get(stage.name, {}).get('val')
    by_skill = all(is_judged_by_skill(store.source(loader.layer)) for store in stores.values())
    left_out = len(stores) > 1  # each part by a network of its own
    return judge(entries, labels, validation, left_out, by_skill)


def refuse_what_moves_batches(model) -> None:
    """Say it where a preprocessor does to images what their priors do not follow."""
    preprocessor = getattr(get_ori_model(model), 'data_preprocessor', None)
    augments = getattr(preprocessor, 'batch_augments', None)
    if augments is not None:
        names = ', '.join(type(augment).__name__ for augment in augments.augments if augment)
        raise UsageError(
            f'{names}: mixes images, whose priors would stay behind; take it out of model.train_cfg.augments'
        )
    if getattr(preprocessor, 'pad_size_divisor', 1) > 1:
        raise UsageError(
            'data_preprocessor.pad_size_divisor: pads images, and not their priors; resize in the pipeline instead'
        )
