"""What tools/benchmarks/detection.py does: a chain of stages for each way, on from where it was stopped, a table."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / 'tools/benchmarks/detection.py'
XML = """<annotation><size><width>48</width><height>48</height></size><object><name>{name}</name>
<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"""


@pytest.fixture
def steel(tmp_path):
    """Five small images of each of six kinds, a box in each, in the layout of NEU-DET: 24 to train with, 6 to test."""
    root, random = tmp_path / 'NEU-DET', np.random.default_rng(0)
    for part in ('IMAGES', 'ANNOTATIONS'):
        (root / part).mkdir(parents=True)
    for kind in range(6):
        for number in range(5):
            image = random.integers(100, 140, (48, 48), np.uint8)
            left, top = random.integers(2, 20, 2)
            image[top : top + 24, left : left + 24] += 20 * kind
            cv2.imwrite(str(root / f'IMAGES/kind{kind}_{number}.png'), image)
            sides = dict(left=left + 1, top=top + 1, right=left + 24, bottom=top + 24)
            (root / f'ANNOTATIONS/kind{kind}_{number}.xml').write_text(XML.format(name=f'kind{kind}', **sides))
    return root


@pytest.fixture
def benchmark(monkeypatch):
    """The module, at a size for tests."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    spec = importlib.util.spec_from_file_location('benchmark_detection', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'SIZES', dict(reduced=module.Size(18, 32, 32, 64, 2)))
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    monkeypatch.setattr(module.time, 'sleep', lambda _: None)
    return module


@pytest.fixture
def run(benchmark, steel, run_here, monkeypatch, capsys):
    """A function that runs the benchmark, each of its commands in this process; which tasks there were, what was said.

    ``stop_at`` is the task at whose start it is interrupted.
    """

    def run(*words, stop_at=None):
        begun = []

        def start(task, root):
            if task.name == stop_at:
                raise KeyboardInterrupt
            begun.append(task.name)
            (root / task.name).mkdir(parents=True, exist_ok=True)
            status, said = run_here(task.words[0].removeprefix('tools/'), *task.words[1:])
            assert status == 0, said
            return SimpleNamespace(poll=lambda: 0, returncode=0, terminate=lambda: None, wait=lambda: None)

        monkeypatch.setattr(benchmark, '_start', start)
        out = steel.parent / 'bench'
        words = ['--data', str(steel), '--work-dir', str(out), '--seeds', '0', '--jobs', '1', *words]
        words += ['--cfg-options', 'model.backbone.base_channels=4', 'model.backbone.stem_channels=4']
        monkeypatch.setattr(sys, 'argv', ['detection.py', *words])
        try:
            benchmark.main()
        except KeyboardInterrupt:
            assert stop_at
        return begun, capsys.readouterr().out

    return run


def test_four_ways_stopped_and_gone_on_with(run, benchmark, tmp_path):
    begun, _ = run('--images', '12', stop_at='agdp-0')
    assert begun == ['pretrain-0', 'boxes-0']
    begun, said = run('--images', '12')
    assert begun == ['agdp-0', 'scratch-12-0', 'classify-12-0', 'agbp-12-0', 'agdp-12-0']
    assert '| 12 | agdp of scratch | 1 | ' in said
    with (tmp_path / 'bench/results.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['way'] for row in rows] == list(benchmark.WAYS)
    assert all(0 <= float(row['mAP']) <= float(row['mAP_50']) <= 1 for row in rows)
    assert {(row['steps'], row['epochs'], row['images']) for row in rows} == {('2', '1', '12')}
    assert not list((tmp_path / 'bench').glob('*-12-0/stage1/*.pth'))
    assert run('--images', '12')[0] == []
    with pytest.raises(benchmark.UsageError, match='its runs have other settings'):
        run('--images', '12', '--steps', '5')
    with pytest.raises(benchmark.UsageError, match='--images 25: the training part has 24'):
        run('--images', '25')


def test_what_the_weights_of_each_way_are(benchmark, tmp_path):
    args = SimpleNamespace(
        work_dir=tmp_path, data=tmp_path, seeds=[3], size='reduced', cfg_options=[], steps=3, pretrain_steps=9,
        ways=benchmark.WAYS, images=['8', 'all'],
    )  # fmt: skip
    tasks = {task.name: task for task in benchmark.Plan(args, 24).tasks()}
    begins = {name: [word for word in task.words if '.pth' in word] for name, task in tasks.items()}
    weights = 'model.backbone.init_cfg.checkpoint='
    assert begins['scratch-8-3'] == begins['pretrain-3'] == []
    assert begins['classify-8-3'] == [f'{weights}{tmp_path}/pretrain-3/classify/backbone.pth']
    assert begins['agbp-24-3'] == begins['agdp-3'] == [f'{weights}{tmp_path}/pretrain-3/agbp/backbone.pth']
    assert begins['agdp-8-3'] == [f'load_from={tmp_path}/agdp-3/stage1/epoch_3.pth']
    assert tasks['agdp-3'].facts['epochs'] == 3
    assert tasks['agdp-8-3'].needs == ('agdp-3',)
    assert {task.facts['steps'] for task in tasks.values() if task.facts.get('way')} == {3}
    assert 'num_images=8' in tasks['agbp-8-3'].words
    assert not any('num_images' in word for word in tasks['agbp-24-3'].words)


def test_scratch_waits_for_no_pretraining(benchmark, tmp_path):
    args = SimpleNamespace(
        work_dir=tmp_path, data=tmp_path, seeds=[0], size='reduced', cfg_options=[], steps=None, pretrain_steps=None,
        ways=['scratch', 'classify'], images=['all'],
    )  # fmt: skip
    tasks = benchmark.Plan(args, 24).tasks()
    assert [task.name for task in benchmark.left_of(tasks, tmp_path)] == ['pretrain-0', 'scratch-24-0', 'classify-24-0']
    (tmp_path / 'classify-24-0').mkdir()
    (tmp_path / 'classify-24-0/done.json').write_text('{"way": "classify"}')
    assert [task.name for task in benchmark.left_of(tasks, tmp_path)] == ['scratch-24-0']


def test_means_and_differences(benchmark):
    rows = [
        dict(way=way, images=50, seed=seed, mAP_50=a, mAP=a / 2)
        for way, found in (('scratch', (0.1, 0.2)), ('agdp', (0.3, 0.5)))
        for seed, a in enumerate(found)
    ]
    text = benchmark.table(rows)
    assert '| 50 | agdp | 2 | 40.0 (-87.1 to 167.1) | 20.0 (-43.5 to 83.5) |' in text
    assert '| 50 | agdp of scratch | 2 | +25.0 (-38.5 to +88.5) | +12.5 (-19.3 to +44.3) |' in text
