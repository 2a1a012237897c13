"""Learning from good parts alone, as a user does it: train, test, inspect, write priors, be guided by them."""

import csv
import json
import shutil
import signal

import pytest
import torch

from kgl_mm.apis import DefectInspector
from kgl_mm.priors import PriorStore

from .test_priors import files
from .test_resume import KILLER, KILLER_MODULE, assert_same, final_state, kill_when

DETECTOR = """
classifier = model
model = dict(
    type='kgl_mm.TeacherStudentDetector',
    teacher=dict(type='kgl_mm.SlimVGG', channels=(4, 8), convs=(1, 1), out_indices=(0, 1)),
    ssp=dict(attention='simam'),
    head=dict({head}),
)
train_dataloader['dataset']['num_positives'] = 0
train_dataloader['batch_size'] = 8
train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=True)
custom_hooks = [dict(type='kgl_mm.CalibrationHook'{hook})]
"""


@pytest.fixture
def write_detector(write_config):
    """A function that writes the config of a small detector and gives its path."""

    def write(name='detector.py', head='', hook='', extra=''):
        return write_config(name, extra=DETECTOR.format(head=head, hook=hook) + extra)

    return write


def metrics_of(root, stage='stage1'):
    return json.loads((root / 'metrics.json').read_text())[stage]['test']


def scales(path):
    state = torch.load(path, weights_only=True)['state_dict']
    return state['head.score_scale'].item(), state['head.map_scale'].item()


@pytest.mark.parametrize('head', ['', "loss='mkd', maps='mkd'"])
def test_train_test_inspect_and_write_priors(tool, run_here, write_detector, surfaces, tmp_path, head):
    config = write_detector(head=head)
    tool('train.py', config, '--work-dir', 'a')
    found = metrics_of(tmp_path / 'a')
    assert {'AP', 'AUROC', 'pixel_AUROC', 'pixel_AP', 'AUPRO'} <= found.keys()
    assert all(scale not in (0, 1) for scale in scales(tmp_path / 'a/stage1/epoch_3.pth'))
    state = torch.load(tmp_path / 'a/stage1/epoch_3.pth', weights_only=True)['state_dict']
    assert state['scales.0.mean'].any()
    assert 'The model could not be asked' not in (tmp_path / 'a/report.html').read_text()
    assert 'A map is missing' not in (tmp_path / 'a/report.html').read_text()
    assert run_here('test.py', str(config), 'a/stage1', '--work-dir', 'again')[0] == 0
    again = json.loads((tmp_path / 'again/metrics.json').read_text())
    again = next(iter(again.values()))['test']
    assert {name: again[name] for name in ('AP', 'AUPRO')} == {name: found[name] for name in ('AP', 'AUPRO')}

    with (tmp_path / 'a/stage1/test_scores.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))[:3]
    inspector = DefectInspector(tmp_path / 'a', device='cpu')
    results = inspector([row['img_path'] for row in rows])
    for result, row in zip(results, rows, strict=True):
        assert result.score == pytest.approx(float(row['score']), abs=1e-5)
        assert 0 <= result.heat_map.min() < result.heat_map.max() < 1

    assert run_here('generate_priors.py', str(config), '--out', 'p', 'a/stage1')[0] == 0
    store = PriorStore(tmp_path / 'p')
    assert len(store.keys()) == 99  # those that the training did not see, too
    assert store.source()['method']['type'] == 'AnomalyMap'
    labels = {key: store.entry(key)['label'] for key in store.keys()}  # noqa: SIM118
    assert set(labels.values()) == {0, 1}
    words = ['--out', 'unturned', '--method-options', 'flips=[]']
    assert run_here('generate_priors.py', str(config), 'a/stage1', *words)[0] == 0
    for key in list(labels)[:3]:
        (result,) = inspector([surfaces / key])
        assert PriorStore(tmp_path / 'unturned').entry(key)['peak'] == pytest.approx(result.map.max(), abs=1e-5)


def test_hook_tool_and_two_processes_write_the_same_maps(tool, two_processes, write_detector, tmp_path):
    method = "method=dict(type='kgl_mm.TeacherStudentSource')"
    config = write_detector(extra=f"custom_hooks.append(dict(type='kgl_mm.PriorGenerationHook', {method}))\n")
    tool('train.py', config, '--work-dir', 'a')
    by_hook = files(tmp_path / 'a/stage1/priors')
    assert len(by_hook) == 99
    two_processes('generate_priors.py', config, 'a/stage1', '--out', 'two')
    assert files(tmp_path / 'two') == by_hook


@pytest.mark.parametrize('where', ['epoch', pytest.param('write', marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_undisturbed(tool, write_detector, tmp_path, where):
    (tmp_path / 'killer.py').write_text(KILLER_MODULE)
    config = write_detector(extra=KILLER.replace('custom_hooks =', 'custom_hooks +='))
    tool('train.py', write_detector('straight.py'), '--work-dir', 'a')
    paths = dict(EXTRA_PATH=str(tmp_path))
    killed = tool('train.py', config, '--work-dir', 'b', env=dict(paths, KILL=where), check=False)
    assert killed.returncode == -signal.SIGKILL
    tool('train.py', config, '--work-dir', 'b', '--resume', env=paths)
    one, other = final_state(tmp_path / 'a'), final_state(tmp_path / 'b')
    one[2].pop('config'), other[2].pop('config')
    assert_same(one, other)


def test_two_processes_share_one_calibration(two_processes, run_here, write_detector, tmp_path):
    config = write_detector()
    two_processes('train.py', config, '--work-dir', 'two', '--data-options', 'val_fraction=0.3')
    score_scale, map_scale = scales(tmp_path / 'two/stage1/epoch_3.pth')
    assert 0 < score_scale == pytest.approx(map_scale, rel=0.2)  # a score is the maximum of a map
    found = metrics_of(tmp_path / 'two')
    assert found['threshold_calibrated']
    # 51 images are filled up to 52, of which each counts once
    words = [str(config), 'two/stage1', '--work-dir', 'one', '--data-options', 'val_fraction=0.3']
    assert run_here('test.py', *words)[0] == 0
    alone = next(iter(json.loads((tmp_path / 'one/metrics.json').read_text()).values()))['test']
    for name in ('AP', 'pixel_AUROC', 'pixel_AP', 'AUPRO'):
        assert found[name] == pytest.approx(alone[name], rel=1e-4)
    assert run_here('train.py', str(config), '--work-dir', 'alone', '--data-options', 'val_fraction=0.3')[0] == 0
    states = [
        torch.load(tmp_path / f'{run}/stage1/epoch_3.pth', weights_only=True)['state_dict'] for run in ('two', 'alone')
    ]
    for name in ('scales.0.mean', 'scales.1.deviation'):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-6, atol=1e-7)


def test_a_folder_of_good_images_and_nothing_else(tool, write_detector, surfaces, tmp_path):
    (tmp_path / 'parts/good').mkdir(parents=True)
    for image in sorted(surfaces.glob('kos*/Part0.png')):
        shutil.copy(image, tmp_path / f'parts/good/{image.parent.name}.png')
    data = "for _part in (train_dataloader, test_dataloader):\n    _part['dataset'].pop('fold')\n"
    data += "    _part['dataset'].update(type='kgl_mm.DefectFolder', data_root='parts')\n"
    config = write_detector(extra=data)
    tool('train.py', config, '--work-dir', 'a')
    found = metrics_of(tmp_path / 'a')
    assert 'AP' not in found
    assert found['FP'] == round((1 - found['accuracy']) * found['num_images'])
    (result,) = DefectInspector(tmp_path / 'a', device='cpu')([tmp_path / 'parts/good/kos01.png'])
    assert 0 < result.score < 1


GUIDED = """
detector = dict(model=model, train_dataloader=train_dataloader, custom_hooks=[*custom_hooks, dict(
    type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.TeacherStudentSource'))])
head = dict(type='kgl_mm.KnowledgeInjectionHead', num_classes=2, in_channels=8, hidden=(8,), branch=(8,))
model = dict(classifier, neck=None, head=head)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='kgl_mm.BalancedSampler'),
    dataset=dict(**data, split='train', num_positives=10,
                 pipeline=[*load, dict(type='kgl_mm.LoadPrior'), dict(type='kgl_mm.BinarizePrior'), *augment, *pack]))
custom_hooks = [dict(type='kgl_mm.GuidanceHook')]
stages = dict(
    stage1=dict(
        detector,
        model=dict(detector['model'], _delete_=True),
        train_dataloader=dict(detector['train_dataloader'], _delete_=True),
    ),
    stage2=dict(),
)
del detector
"""


def test_a_detector_guides_a_classifier(tool, write_detector, tmp_path):
    done = tool('train.py', write_detector(extra=GUIDED), '--work-dir', 'a')
    assert len(PriorStore(tmp_path / 'a/stage1/priors').keys()) == 99
    assert 'of the priors' in done.stdout + done.stderr  # its source was judged, strong or weak
    assert {'stage1', 'stage2'} == json.loads((tmp_path / 'a/metrics.json').read_text()).keys()
    assert (tmp_path / 'a/guided.png').exists()
    report = (tmp_path / 'a/report.html').read_text()
    assert 'The model could not be asked' not in report


def test_a_broken_calibration_is_said_before_the_training(tool, write_config):
    done = tool('train.py', write_config(extra="custom_hooks = [dict(type='kgl_mm.CalibrationHook')]\n"), check=False)
    assert done.returncode == 2
    assert 'ImageClassifier has no head that can be calibrated' in done.stderr


@pytest.fixture
def generate_here(generator, write_detector):
    """``generate_priors.py`` in this process, RUN being a trained detector."""
    return generator(write_detector())


def test_any_source_by_the_tool(generate_here, two_processes, surfaces, write_detector, trained, tmp_path):
    memory = ['--method', 'PatchMemorySource', '--method-options', 'k=3', 'compare=4']
    assert generate_here('RUN', *memory, '--out', 'memory')[0] == 0
    store = PriorStore(tmp_path / 'memory')
    assert store.source()['method']['k'] == 3
    assert store.source()['method']['layers']
    two_processes('generate_priors.py', write_detector(), trained / 'stage1', *memory, '--out', 'two')
    assert files(tmp_path / 'two') == files(tmp_path / 'memory')
    # the test part joins, since the source learns from the training part all the same
    assert generate_here('RUN', *memory, '--out', 'memory', '--split', 'test')[0] == 0
    assert len(files(tmp_path / 'memory')) == 99 + 51
    folder = [
        '--method',
        'FolderSource',
        '--method-options',
        f'folder={surfaces}',
        'ending=_label',
        '--batch-size',
        '8',
    ]
    assert generate_here(*folder, '--out', 'folder', '--split', 'test')[0] == 2  # these are BMP files
    assert generate_here('--method', 'FolderSource', '--method-options', 'masks=True', '--out', 'masks')[0] == 0
    assert len(files(tmp_path / 'masks')) == 99


def test_a_network_of_its_own_needs_no_checkpoint(run_here, write_detector, tmp_path):
    network = "dict(type='kgl_mm.SlimVGG', channels=(4,), convs=(1,))"
    method = f"dict(type='kgl_mm.PatchMemorySource', k=2, compare=3, network={network})"
    config = write_detector(extra=f"custom_hooks.append(dict(type='kgl_mm.PriorGenerationHook', method={method}))\n")
    status, errors = run_here('generate_priors.py', str(config), '--out', 'own', '--split', 'test')
    assert status == 0, errors[-2000:]
    store = PriorStore(tmp_path / 'own')
    assert store.source()['method']['network']['channels'] == [4]
    assert len(store.keys()) == 51
    words = ['--split', 'test', '--method', 'PatchMemorySource', '--method-options', 'k=2', 'compare=3']
    words += ['network.type=kgl_mm.SlimVGG', 'network.channels=[4]', 'network.convs=[1]']
    status, errors = run_here('generate_priors.py', str(write_detector()), '--out', 'by_words', *words)
    assert status == 0, errors[-2000:]
    assert files(tmp_path / 'by_words') == files(tmp_path / 'own')


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        ([], 'looks with a trained network, so give its checkpoint'),
        (['--method', 'PatchMemorySource'], 'looks with a trained network, so give its checkpoint'),
        (['RUN', '--method', 'SegmentationMap'], 'TeacherStudentDetector has 0 heads that segment'),
        (['--method', 'FolderSource', '--method-options', 'folder=absent'], 'absent: no such folder'),
        (['RUN', '--method', 'PatchMemorySource', '--method-options', 'colour=red'], 'colour'),
        (['RUN', '--method-options', 'flips=[x]'], 'flips='),
    ],
)
def test_bad_input_gets_one_sentence(generate_here, words, sentence):
    status, errors = generate_here(*words)
    assert status == 2, errors[-2000:]
    (error,) = [line for line in errors.splitlines() if line.startswith('error: ')]
    assert sentence in error
    assert 'Traceback' not in errors


def test_a_generation_that_is_killed_goes_on_where_it_stopped(
    tool, start, write_detector, trained, generate_here, tmp_path
):
    words = [
        write_detector(),
        trained / 'stage1',
        '--method',
        'PatchMemorySource',
        '--method-options',
        'k=2',
        'compare=3',
    ]
    tool('generate_priors.py', *words, '--out', 'whole')
    maps = tmp_path / 'killed/evidence'
    kill_when(start('generate_priors.py', *words, '--out', 'killed'), lambda: len(list(maps.rglob('*.png'))) >= 5)
    assert len(files(tmp_path / 'killed')) < 99
    tool('generate_priors.py', *words, '--out', 'killed')
    assert files(tmp_path / 'killed') == files(tmp_path / 'whole')
