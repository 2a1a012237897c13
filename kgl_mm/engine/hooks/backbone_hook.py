import io
import logging
from pathlib import Path

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmpretrain.utils import get_ori_model
from torch import nn

from kgl_mm.datasets.binding import bind_priors, refuse_what_does_not_stack
from kgl_mm.datasets.seeding import set_epoch
from kgl_mm.engine.checkpoint_io import tested_weights
from kgl_mm.engine.hooks.guidance_hook import begin_workers_anew, refuse_what_moves_batches
from kgl_mm.errors import UsageError, first_line
from kgl_mm.files import write_atomically
from kgl_mm.models.losses import attention_map
from kgl_mm.models.pretrained import is_pretrained
from kgl_mm.priors.sources.base import spread
from kgl_mm.registry import HOOKS
from kgl_mm.saliency.one_pass import undisturbed
from kgl_mm.visualization import draw_contact_sheet

WEIGHTS, PICTURE = 'backbone.pth', 'attention.png'
LOOKED_AT, SHOWN = 24, 6
OF_THE_TASK = ('mask_token',)
"""Weights of a backbone that its pretraining alone uses."""


@HOOKS.register_module()
class BackboneHook(Hook):
    """Leaves the backbone of a pretraining as plain weights, ``WORK_DIR/backbone.pth``, when the training has ended.

    It is a dict of tensors whose keys begin with ``backbone.``, without what the pretraining alone used. So it loads in
    any config of mmpretrain, and as the start of a whole training, such as stage 1 of guided learning::

        model.backbone.init_cfg = dict(type='Pretrained', checkpoint='WORK_DIR/backbone.pth', prefix='backbone.')
        load_from = 'WORK_DIR/backbone.pth'

    Beside it, ``attention.png`` shows some training images with their priors and with the attention of each output of
    the backbone, where priors are strongest. Before the training the hook makes sure that priors belong to the images
    and move with them, as ``GuidanceHook`` does.

    Example::

        custom_hooks = [dict(type='kgl_mm.BackboneHook')]
    """

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        model = get_ori_model(runner.model)
        if not isinstance(getattr(model, 'backbone', None), nn.Module):
            raise UsageError(f'BackboneHook: {type(model).__name__} has no backbone; remove the hook')
        refuse_what_moves_batches(model)
        if bind_priors(runner.train_dataloader.dataset):
            refuse_what_does_not_stack(runner.train_dataloader)
            begin_workers_anew(runner)
        frozen = getattr(model.backbone, 'frozen_stages', -1)
        if frozen >= 0 and not (runner._load_from or is_pretrained(model) or is_pretrained(model.backbone)):
            print_log(
                f'Warning: frozen_stages={frozen} of the backbone, and no weights were loaded: what is frozen stays '
                'random; set model.backbone.init_cfg, or frozen_stages=-1.',
                logger='current',
                level=logging.WARNING,
            )

    @master_only
    def after_train(self, runner) -> None:
        model = get_ori_model(runner.model)
        with tested_weights(runner, model):
            self._write(runner, model)

    def _write(self, runner, model: nn.Module) -> None:
        weights = {
            f'backbone.{name}': value.detach().cpu().clone()
            for name, value in model.backbone.state_dict().items()
            if name not in OF_THE_TASK
        }
        data = io.BytesIO()
        torch.save(weights, data)
        write_atomically(Path(runner.work_dir, WEIGHTS), data.getvalue())
        try:
            # of the last epoch, so that it is the same picture where nothing was left to train
            set_epoch(runner.train_dataloader.dataset, runner.seed, runner.max_epochs - 1)
            picture = attention_sheet(model, runner.train_dataloader.dataset)
        except Exception as error:  # of somebody's model or data; the weights are there without it
            print_log(f'{PICTURE} was not drawn: {first_line(error)}.', logger='current', level=logging.WARNING)
        else:
            write_atomically(Path(runner.work_dir, PICTURE), picture)


def attention_sheet(model: nn.Module, dataset) -> bytes:
    """Some images as a training sees them, their priors, and where a model looks, as a PNG file.

    The strongest of each map is drawn hottest, since the scale of attention says nothing.
    """
    data = [dataset[index] for index in spread(range(len(dataset)), LOOKED_AT)]
    data = sorted(data, key=lambda each: -float(_prior(each).max()))[:SHOWN]
    rows = {}
    for each in data:
        image = each['inputs'].permute(1, 2, 0).numpy()
        with undisturbed(model), torch.no_grad():
            batch = model.data_preprocessor(pseudo_collate([each]), training=False)
            feats = model.extract_feat(batch['inputs'])
        maps = dict(prior=_prior(each)) | {f'attention, output {i}': attention_map(f)[0] for i, f in enumerate(feats)}
        for title, found in maps.items():
            found = found.float().cpu().numpy()
            rows.setdefault(title, []).append(dict(image=image, prior=found / max(float(found.max()), 1e-12)))
    return draw_contact_sheet(rows, top=1.0)


def _prior(data: dict) -> torch.Tensor:
    return data['data_samples'].prior[0]
