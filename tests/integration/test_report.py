"""The report of whole runs: what a training leaves, a test of a checkpoint, and a run that lacks a part."""

import shutil

import cv2
import numpy as np
import pytest

from kgl_mm.apis import DefectInspector
from kgl_mm.datasets import KolektorSDD
from kgl_mm.files import read_json
from kgl_mm.report import report
from kgl_mm.report.data import read_run
from kgl_mm.report.doubts import doubts
from kgl_mm.report.knowledge import evidence_of

from ..report.test_report import Page, check_alone


def test_a_run_of_two_stages_has_all_of_it(run_here, tool, write_guided, tmp_path):
    config = write_guided(name='g.py')
    words = ('--data-options', 'val_fraction=0.3', '--cfg-options', 'val_evaluator.threshold_aim=misses=0.25')
    status, said = run_here('train.py', str(config), '--work-dir', 'a', *words)
    assert status == 0, said
    page = Page(tmp_path / 'a/report.html')
    check_alone(page)
    assert page.sections == ['metrics', 'threshold', 'curves', 'errors', 'labels', 'priors', 'training', 'run']
    section = {name: page.text['section', name] for name in page.sections}
    assert 'stage1,\nval' in section['metrics']
    aim = 'chosen on validation data for at most 25 % of defects missed'
    assert aim in section['metrics']
    assert aim in section['errors']
    assert 'ot calibrated' not in page.path.read_text('utf-8')
    for found in read_json(tmp_path / 'a/metrics.json').values():
        assert {facts['threshold_aim'] for facts in found.values()} == {'at most 25 % of defects missed'}
        assert found['val']['FN'] <= 0.25 * found['val']['num_defects']
        assert found['val']['FN'] / found['val']['num_defects'] < found['val']['miss_rate_high'] <= 1
    assert aim in str(DefectInspector(tmp_path / 'a').threshold)
    captions = [image['alt'].split(' of ')[0] for image in page.of('img')]
    assert {'image', 'heat map', 'segmentation', 'mask'} <= set(captions)
    assert 'missing' not in section['errors']
    assert 'a model that has trained on these very images' in section['labels']
    assert 'kos' in section['labels']
    assert 'stage2 trusts them by 1.00' in section['priors']
    for name in ('loss_seg', 'lambda', 'AUROC'):
        assert name in section['training']
    assert 'stage2, train' in section['run']
    before = page.data
    (tmp_path / 'a/report.html').unlink()
    assert 'not where they were' not in tool('report.py', 'a').stdout
    assert Page(tmp_path / 'a/report.html').data == before
    elsewhere = tmp_path / 'elsewhere'
    shutil.copytree(tmp_path / 'a', elsewhere / 'a')
    table = elsewhere / 'a/stage2/test_scores.csv'
    table.write_text(table.read_text().replace('KolektorSDD', 'moved'))
    assert 'test images are not where they were, seen from' in tool('report.py', elsewhere / 'a').stdout
    # a test elsewhere knows of no training
    status, said = run_here('test.py', str(config), 'a/stage2', '--work-dir', 'b', *words)
    assert status == 0, said
    page = Page(tmp_path / 'b/report.html')
    check_alone(page)
    assert 'neither made nor read priors' in page.text['section', 'priors']
    assert 'No log of a training' in page.text['section', 'training']
    assert any(image['alt'].startswith('segmentation of') for image in page.of('img'))
    # maps and weights that are gone
    shutil.rmtree(tmp_path / 'a/stage1/priors/evidence')
    for weights in (tmp_path / 'a').rglob('*.pth'):
        weights.unlink()
    status, said = run_here('report.py', 'a')
    assert status == 0, said
    assert 'checkpoint is no longer there' in Page(tmp_path / 'a/report.html').text['section', 'errors']


def test_evidence_of_cross_fitted_models_is_said_to_be_fair(run_here, write_guided, tmp_path):
    config = write_guided(extra='crossfit = 2\ntrain_cfg = dict(by_epoch=True, max_epochs=1)\n')
    status, said = run_here('train.py', str(config), '--work-dir', 'a')
    assert status == 0, said
    page = Page(tmp_path / 'a/report.html')
    check_alone(page)
    assert 'from a model that has not trained on it' in page.text['section', 'labels']
    assert 'stage1_part2' in page.text['section', 'priors']
    assert 'stage1_part1,\n' not in page.text['section', 'metrics']
    # without validation data
    assert 'Calibrated:' not in page.text['section', 'metrics']
    assert 'Not calibrated:' in page.text['section', 'metrics']
    assert 'threshold of 0.500, not calibrated' in page.text['section', 'errors']
    assert {stage['origin'] for stage in page.data['stages']} == {'not calibrated'}
    for found in read_json(tmp_path / 'a/metrics.json').values():
        assert (found['test']['threshold'], found['test']['threshold_calibrated']) == (0.5, 0)
        assert 'threshold_aim' not in found['test']
    assert str(DefectInspector(tmp_path / 'a').threshold) == '0.500 (not calibrated)'


def test_flipped_labels_are_among_the_first_suspects(run_here, write_guided, surfaces, tmp_path):
    """Two defective training images are called good, three good ones defective, by their masks."""
    root = shutil.copytree(surfaces, tmp_path / 'flipped')
    masks = {path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(root.glob('kos*/*_label.bmp'))}
    test = KolektorSDD(str(root), split='test')
    tested = {test.get_data_info(index)['unit'] for index in range(len(test))}
    trained = [path for path in masks if path.parent.name not in tested]
    hidden = [path for path in trained if masks[path].any()][1:12:8]
    invented = [path for path in trained if not masks[path].any()][5::25][:3]
    for path in hidden + invented:
        mask = np.zeros_like(masks[path])
        mask[:8, :8] = 255 * (path in invented)
        cv2.imwrite(str(path), mask)
    flipped = {f'{path.parent.name}/{path.stem.removesuffix("_label")}.png' for path in hidden + invented}
    assert len(flipped) == 5
    config = write_guided(extra='crossfit = 3\nstages["stage1"]["train_cfg"] = dict(max_epochs=12)\n')
    options = ('--data', str(root), '--cfg-options', 'train_cfg.max_epochs=1')
    status, said = run_here('train.py', str(config), '--work-dir', 'a', *options)
    assert status == 0, said
    assert flipped <= {doubt.key for doubt in doubts(evidence_of(read_run(tmp_path / 'a'))[0])[:10]}
    shown = Page(tmp_path / 'a/report.html').text['section', 'labels']
    assert all(key in shown for key in flipped)


def test_a_report_that_fails_does_no_harm_to_the_run(run_here, write_config, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError('no ink')

    monkeypatch.setattr(report, 'write_report', fail)
    status, said = run_here(
        'train.py', str(write_config()), '--work-dir', 'a', '--cfg-options', 'train_cfg.max_epochs=1'
    )
    assert status == 0, said
    assert (tmp_path / 'a/metrics.json').is_file()
    assert not (tmp_path / 'a/report.html').exists()
    (log,) = (tmp_path / 'a/stage1').glob('*/*.log')
    assert 'WARNING - a: the report could not be drawn (RuntimeError: no ink)' in log.read_text()


@pytest.mark.parametrize('words', [('nowhere',), ()])
def test_a_folder_that_is_no_run_gets_one_sentence(run_here, words, tmp_path):
    status, said = run_here('report.py', *words)
    assert status == 2
    assert ('not the work directory of a run' if words else 'work_dir') in said
