"""The report of whole runs: what a training leaves, a test of a checkpoint, and a run that lacks a part."""

import shutil

import pytest

from kgl_mm.report import report

from ..report.test_report import Page, check_alone


def test_a_run_of_two_stages_has_all_of_it(run_here, write_guided, tmp_path):
    config = write_guided(name='g.py')
    words = ('--data-options', 'val_fraction=0.3')
    status, said = run_here('train.py', str(config), '--work-dir', 'a', *words)
    assert status == 0, said
    page = Page(tmp_path / 'a/report.html')
    check_alone(page)
    assert page.sections == ['metrics', 'threshold', 'curves', 'errors', 'labels', 'priors', 'training', 'run']
    section = {name: page.text['section', name] for name in page.sections}
    assert 'stage1,\nval' in section['metrics']
    assert 'chosen on validation data' in section['metrics']
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
    status, said = run_here('report.py', 'a')
    assert status == 0, said
    assert Page(tmp_path / 'a/report.html').data == before
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
