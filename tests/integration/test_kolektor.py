"""A short training on the real KolektorSDD, at a sixteenth of its area."""

import json
import os
from pathlib import Path

import pytest

DATA = os.environ.get('KGL_DATA_ROOT')


@pytest.mark.skipif(not DATA, reason='KGL_DATA_ROOT is not set')
def test_a_reduced_training_on_a_clean_fold(tool, write_config, tmp_path):
    config = write_config()
    options = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.pipeline.2.scale=(128,352)']
    options += ['test_dataloader.dataset.pipeline.2.scale=(128,352)']
    words = [
        '--data',
        Path(DATA, 'KolektorSDD'),
        '--data-options',
        'fold=0',
        'protocol=clean',
        '--cfg-options',
        *options,
    ]
    tool('train.py', config, '--work-dir', 'a', *words)
    facts = json.loads((tmp_path / 'a/metrics.json').read_text())['stage1']['test']
    assert facts['num_images'] == 135
    assert facts['num_defects'] == 18
    assert 0 < facts['AP_low'] <= facts['AP'] <= facts['AP_high'] <= 1
