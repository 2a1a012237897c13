"""What a small validation part would have chosen, from the scores that a study keeps."""

import csv

import numpy as np
import pytest


@pytest.fixture
def study(tmp_path):
    """Of two seeds the first variant is the better one in the first, as the validation images show, else the second."""
    rows = []
    for number, seed, sure in ((5, 0, 'a'), (5, 1, 'b'), (10, 0, 'a')):
        for variant in 'ab':
            folder = tmp_path / f'study/runs/{variant}{number}{seed}/stage2'
            folder.mkdir(parents=True)
            labels = np.arange(40) % 4 == 0
            odds = np.where(labels, 1, -1) * (1 if variant == sure else -1)  # all right, or all wrong
            with (folder / 'val_scores.csv').open('w', newline='') as file:
                writer = csv.writer(file)
                writer.writerow(['img_path', 'label', 'log_odds'])
                writer.writerows((f'{i:02}.png', int(label), odds[i]) for i, label in enumerate(labels))
            facts = dict(stage='stage2', status='done', test_AP=0.9 if variant == sure else 0.5)
            cell = {'variant': variant, 'data.num_positives': number, 'seed': seed, 'fold': ''}
            rows.append(cell | facts | dict(run=f'{variant}{number}{seed}'))
    with (tmp_path / 'study/results.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_validation_images_choose(tool, study):
    words = ['--sizes', '3+1', '--draws', 5, '--where', 'data.num_positives=5']
    said = tool('benchmarks/choice.py', 'study', 'a', 'b', *words).stdout.splitlines()
    assert said[-4].split() == ['a', 'test', 'AP', '0.700']
    assert said[-3].split() == ['b', 'test', 'AP', '0.700']
    assert said[-1].split() == ['3+1', 'choose', 'test', 'AP', '0.900,', 'b', 'in', '50%']


def test_no_field_hides_another(tool, study):
    said = tool('benchmarks/choice.py', 'study', 'a', 'b', '--sizes', '3+1', '--draws', 5).stdout.splitlines()
    assert said[-4].split()[-1] == '0.767'


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['a', 'c'], 'no runs of the same fold and seed of a and c'),
        (['a', 'b', '--sizes', '3'], '--sizes 3: write GOOD+DEFECTIVE'),
        (['a', 'b', '--sizes', '99+1'], '--sizes 99+1: there are 30+10 images'),
    ],
)
def test_what_cannot_be_chosen_is_said(run_here, study, words, sentence):
    status, said = run_here('benchmarks/choice.py', 'study', *words)
    assert status == 2
    assert sentence in said
