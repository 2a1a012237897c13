"""What guidance gains, against what stage 1 knew, from the rows of a study."""

import csv

import cv2


def write(path, seeds):
    """Of each seed the AP (validation, test) of stage 1 and of variants."""
    rows = []
    for seed, cell in enumerate(seeds):
        first = cell['guided', 'stage1']
        for (variant, stage), (val, test) in (
            dict.fromkeys(((name, 'stage1') for name, _ in cell), first) | cell
        ).items():
            row = dict(variant=variant, seed=seed, fold='', stage=stage, status='done')
            rows.append(row | dict(val_AP=val, test_AP=test, uses='', code=''))
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def cell(first, guided, head, head_open):
    found = {('guided', 'stage1'): first, ('guided', 'stage2'): guided}
    return found | {('head', 'stage2'): head, ('head_open', 'stage2'): head_open}


def test_gain_over_the_control_that_validation_chooses(tool, tmp_path):
    write(
        tmp_path / 'rows.csv',
        [
            cell((0.5, 0.2), guided=(0.6, 0.60), head=(0.5, 0.9), head_open=(0.8, 0.70)),  # -10, with or without 0
            cell((0.5, 0.3), guided=(0.9, 0.90), head=(0.7, 0.6), head_open=(0.1, 0.95)),  # +30, both ways
            cell((0.5, 1.0), guided=(0.9, 0.99), head=(0.7, 0.98), head_open=(0.1, 0.5)),  # alone in its line
        ],
    )
    said = tool('benchmarks/gain.py', 'rows.csv', '--out', 'gain.png').stdout.splitlines()
    assert said[0] == '| stage 1 | judged | with or without, by validation data |'
    lines = {line.split(' | ')[0]: line for line in said[2:]}
    assert '| +10.0 (-10.0 to +30.0), 2 runs | +15.0 (+0.0 to +30.0), 2 runs |' in lines['| 0 to 40']
    assert 'runs' not in lines['| 95 to 100']  # one run has no interval
    assert cv2.imread(str(tmp_path / 'gain.png')).std() > 0


def test_a_control_that_failed_is_not_replaced_by_a_weaker_one(tool, tmp_path):
    whole = [cell((0.5, 0.2 + 0.01 * i), guided=(0.6, 0.6), head=(0.5, 0.3), head_open=(0.8, 0.7)) for i in range(3)]
    write(tmp_path / 'rows.csv', whole)
    text = (tmp_path / 'rows.csv').read_text().splitlines()
    place = next(i for i, line in enumerate(text) if line.startswith('head_open,2,,stage2'))
    text[place] = text[place].replace('done', 'failed')
    (tmp_path / 'rows.csv').write_text('\n'.join(text) + '\n')
    said = tool('benchmarks/gain.py', 'rows.csv', '--out', 'gain.png').stdout
    assert '-10.0 (-10.0 to -10.0), 2 runs' in said


def test_a_table_without_guided_runs_is_refused(run_here, tmp_path):
    write(tmp_path / 'rows.csv', [cell((0.5, 0.2), (0.6, 0.6), (0.5, 0.9), (0.8, 0.7))])
    status, said = run_here('benchmarks/gain.py', 'rows.csv', '--control', 'other')
    assert status == 2
    assert 'rows.csv: no guided run has one of other beside it' in said
    (tmp_path / 'other.csv').write_text('set,images\nfew,3\n')
    for name in ('other.csv', 'absent.csv'):
        status, said = run_here('benchmarks/gain.py', name)
        assert status == 2
        assert f'{name}: not the results.csv of a study of variants' in said
