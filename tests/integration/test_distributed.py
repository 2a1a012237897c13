"""Two processes on gloo against one: the same gradients, every test image once, the same buffers everywhere."""

import csv
import json

import torch

HOOK = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Spy(Hook):
    priority = 'LOWEST'

    def before_train(self, runner):
        self.images = []

        def keep(optimizer, args, kwargs):
            if runner.iter == 0:
                grads = [p.grad.clone() for group in optimizer.param_groups for p in group['params']]
                torch.save(grads, f'{runner.work_dir}/grads{get_rank()}.pth')

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.images.append([sample.img_path for sample in data_batch['data_samples']])

    def after_train(self, runner):
        torch.save(self.images, f'{runner.work_dir}/images{get_rank()}.pth')
        torch.save([b.clone() for b in runner.model.buffers()], f'{runner.work_dir}/buffers{get_rank()}.pth')
"""
SPY = "custom_imports = dict(imports=['spy'])\ncustom_hooks = [dict(type='Spy')]\n"


def test_two_processes_equal_one_at_the_same_global_batch(tool, two_processes, write_config, tmp_path):
    (tmp_path / 'spy.py').write_text(HOOK)
    env = dict(EXTRA_PATH=str(tmp_path))
    plain = dict(norm='None', dropout=0.0)
    one = write_config('one.py', extra=SPY, **plain)
    two = write_config('two.py', extra=SPY + 'train_dataloader["batch_size"] = 2\n', **plain)
    tool('train.py', one, '--work-dir', 'one', env=env)
    two_processes('train.py', two, '--work-dir', 'two', env=env)

    def read(run, name):
        return torch.load(tmp_path / run / 'stage1' / f'{name}.pth', weights_only=True)

    for expected, got0, got1 in zip(read('one', 'grads0'), read('two', 'grads0'), read('two', 'grads1'), strict=True):
        torch.testing.assert_close(got0, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got1, got0, rtol=0, atol=0)
    for single, first, second in zip(
        read('one', 'images0'), read('two', 'images0'), read('two', 'images1'), strict=True
    ):
        assert sorted(single) == sorted(first + second)
    weights = [
        torch.load(tmp_path / run / 'stage1/epoch_3.pth', weights_only=True)['state_dict'] for run in ('one', 'two')
    ]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)


def test_buffers_agree_and_every_test_image_counts_once(tool, two_processes, write_config, tmp_path):
    (tmp_path / 'spy.py').write_text(HOOK)
    env = dict(EXTRA_PATH=str(tmp_path))
    config = write_config(extra=SPY)
    tool('dist_train.sh', config, 2, '--work-dir', 'a', env=env)
    buffers = [torch.load(tmp_path / 'a/stage1' / f'buffers{rank}.pth', weights_only=True) for rank in (0, 1)]
    assert any(b.is_floating_point() for b in buffers[0])
    torch.testing.assert_close(buffers[0], buffers[1], rtol=0, atol=0)
    facts = json.loads((tmp_path / 'a/metrics.json').read_text())['stage1']['test']
    with (tmp_path / 'a/stage1/test_scores.csv').open() as file:
        paths = [row['img_path'] for row in csv.DictReader(file)]
    assert len(paths) == len(set(paths)) == facts['num_images'] == 51
    two_processes('test.py', config, 'a/stage1/epoch_3.pth', '--work-dir', 'b', env=env)
    again = json.loads((tmp_path / 'b/metrics.json').read_text())['stage1']['test']
    assert again['AP'] == facts['AP']
    tool('test.py', config, 'a/stage1/epoch_3.pth', '--work-dir', 'c', env=env)
    alone = json.loads((tmp_path / 'c/metrics.json').read_text())['stage1']['test']
    assert abs(alone['AP'] - facts['AP']) < 1e-6
