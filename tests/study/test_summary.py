import csv

import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.study.plot import _curves, draw
from kgl_mm.study.summary import (
    better,
    by_seed,
    compare,
    groups_of,
    markdown,
    steps,
    summarise,
    with_or_without,
    write_summary,
)


def test_mean_over_folds_then_over_seeds(rows):
    (group,) = groups_of(rows({0: [0.8, 1.0], 1: [0.6, 0.8], 2: [0.7, 0.9]}))
    (line,) = summarise([group])
    assert line['AP'] == pytest.approx(0.8)
    assert line['AP_std'] == pytest.approx(0.1)  # of 0.9, 0.7 and 0.8
    assert line['AP_worst'] == pytest.approx(0.7)
    assert line['AP'] - line['AP_low'] == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert line['AP_high'] == 1  # there is no more
    assert (line['FP'], line['FN'], line['seeds'], line['failed']) == (4, 2, 3, 0)


def test_a_seed_that_lacks_a_fold_is_left_out_and_said(rows):
    (group,) = groups_of(rows({0: [0.8, 1.0], 1: [0.2, None], 2: [0.7, 0.9]}))
    (line,) = summarise([group])
    assert line['AP'] == pytest.approx(0.85)  # the 0.2 of the easier fold alone would mean nothing
    assert line['FP'] == 4
    assert (line['seeds'], line['runs'], line['failed']) == (2, 6, 1)
    assert '1 of 6 runs failed, 1 seed lacks folds |' in markdown([line], [])


def test_a_fold_whose_images_give_no_ap_is_said(rows):
    """Its test part has one class, so that accuracy alone is there for all folds."""
    members = rows({0: [0.8, 1.0]})
    for row in members:
        row['test_accuracy'] = '0.9'
    members[1]['test_AP'] = members[1]['test_AUROC'] = ''
    (line,) = summarise(groups_of(members))
    assert 'AP' not in line
    assert (line['seeds'], line['lacking'], line['failed']) == (1, 1, 0)
    assert '1 seed lacks folds' in markdown([line], [])


def test_a_seed_that_has_not_come_to_all_folds_is_said(rows):
    """Of a study that was stopped: no run failed."""
    (group,) = groups_of(rows({0: [0.8, 1.0], 1: [0.2], 2: [0.7, 0.9], 3: [0.1]}))
    (line,) = summarise([group])
    assert (line['AP'], line['seeds'], line['lacking'], line['failed']) == (pytest.approx(0.85), 2, 2, 0)
    assert '| 2 seeds lack folds |' in markdown([line], [])
    assert 'lack' not in markdown(summarise(groups_of(rows({0: [0.8, 1.0], 1: [0.2, 0.3]}))), [])


def test_a_fold_that_others_have_and_one_lacks_makes_no_mean(rows):
    members = rows({0: [0.8, 0.6]}, variant='a') + rows({0: [0.9]}, variant='b')  # of the easier fold alone
    lines = summarise(groups_of(members))
    assert lines[0]['AP'] == pytest.approx(0.7)
    assert 'AP' not in lines[1]


def test_where_all_failed_there_is_no_mean(rows):
    (line,) = summarise(groups_of(rows({0: [None]})))
    assert 'AP' not in line
    assert '1 of 1 runs failed' in markdown([line], [])


def test_rows_of_older_code_are_said(rows):
    members = rows({0: [0.5]})
    members[0]['stale'] = 'yes'
    assert '1 rows of older code' in markdown(summarise(groups_of(members)), [])


def test_what_all_rows_share_is_in_no_label(rows):
    one, two = (rows({0: [0.5]}, variant=variant, number='5') for variant in 'ab')
    assert [group.label for group in groups_of(one + two)] == ['a', 'b']
    assert [group.label for group in groups_of(one)] == ['a number=5']


def test_validation_data_choose_the_better_of_two_run_by_run(rows):
    one, two = (rows({0: [0.5, 0.6], 1: [0.7, 0.8]}, variant='a'), rows({0: [0.9, 0.4], 1: [0.75, None]}, variant='b'))
    for row, score in zip(one + two[:3], (0.3, 0.3, 0.3, 0.3, 0.4, 0.2, 0.3), strict=True):
        row['val_AP'] = str(score)
    groups = groups_of(one + two)
    chosen = better(groups, ['a', 'b'])
    assert chosen.label == 'a or b'
    # one is better on the test and not chosen; of equal ones the first is taken; where one failed there is no choice
    assert [row.get('test_AP') for row in chosen.rows] == ['0.9', '0.6', '0.7', None]
    (line,) = summarise([chosen])
    assert (line['AP'], line['seeds'], line['failed']) == (pytest.approx(0.75), 1, 1)
    with pytest.raises(UsageError, match='--better c: not among a, b'):
        better(groups, ['a', 'c'])
    del one[0]['val_AP']
    with pytest.raises(UsageError, match='no AP of validation data to choose by'):
        better(groups, ['a', 'b'])


def test_with_or_without_guidance_is_chosen_for_each_setting(rows):
    """The stage without guidance may be shared and come last; rounds are chosen from as well."""
    members = []
    for pooling, guided, last in (('avg', 0.7, 0.9), ('max', 0.5, 0.4)):
        for stage, val, test in (
            ('stage1', 1.0, 0.4),
            ('stage2', guided, 0.1),
            ('stage2_round2', last, 0.2),
            ('stage2_unguided', 0.6, 0.3),
        ):
            key = stage if stage in ('stage1', 'stage2_unguided') else f'{stage}{pooling}'
            found = rows({0: [test], 1: [test]}, stage, key=key, pooling=pooling)
            members += [row | dict(val_AP=str(val)) for row in found]
    groups = groups_of(members)
    chosen, notes = with_or_without(groups)
    assert notes == []
    assert [group.label for group in chosen] == [
        ' or '.join(['stage2_unguided', f'pooling={pooling} stage2', f'pooling={pooling}'])
        for pooling in ('avg', 'max')
    ]
    assert [[row['test_AP'] for row in group.rows] for group in chosen] == [['0.2', '0.2'], ['0.3', '0.3']]
    assert [group.settings for group in chosen] == [{}, {}]  # that without guidance is of both
    assert with_or_without([group for group in groups if 'unguided' not in group.label]) == ([], [])


def test_where_validation_data_cannot_choose_a_note_says_so(rows):
    members = [
        row | dict(val_AP='1.0' if pooling == 'avg' else '')  # there, the validation part has no defects
        for pooling in ('avg', 'max')
        for stage in ('stage2', 'stage2_unguided')
        for row in rows({0: [0.5]}, stage, pooling=pooling)
    ]
    chosen, notes = with_or_without(groups_of(members))
    assert [group.label for group in chosen] == ['pooling=avg stage2_unguided or pooling=avg']
    assert notes == [
        'There is no "pooling=max stage2_unguided or pooling=max": some of these runs have no AP of validation data.'
    ]
    assert notes[0] in markdown([], [], notes)


def test_of_equal_ones_it_is_that_without_guidance_as_in_a_run(rows):
    members = [
        row | dict(val_AP='1.0')
        for stage, test in (('stage2', 0.1), ('stage2_unguided', 0.3))
        for row in rows({0: [test]}, stage, variant='a')
    ]
    ((chosen,), _) = with_or_without(groups_of(members))
    assert [row['test_AP'] for row in chosen.rows] == ['0.3']


def test_no_two_groups_have_one_name(rows):
    """Two that share a first stage, and two others that share another one."""
    members = []
    for variant, first in (('a', 'x'), ('b', 'x'), ('c', 'y'), ('d', 'y')):
        members += rows({0: [0.5]}, 'stage1', key=first, variant=variant) + rows({0: [0.7]}, variant=variant)
    labels = [group.label for group in groups_of(members)]
    assert labels == ['stage1 of a, b', 'a', 'b', 'stage1 of c, d', 'c', 'd']


def test_a_part_of_a_first_stage_is_no_last_one(rows):
    members = rows({0: [0.7]}, variant='a') + rows({0: [None]}, 'stage1_part1', variant='b')
    assert [group.label for group in groups_of(members + rows({0: [0.8]}, variant='b'))] == ['a', 'b stage1_part1', 'b']


def test_a_shared_stage_is_one_group(rows):
    values = {0: [0.5], 1: [0.6]}
    members = [
        *rows(values, 'stage1', key='first', channel='none'),
        *rows({0: [0.7], 1: [0.8]}, channel='none'),
        *rows(values, 'stage1', key='first', channel='self'),
        *rows({0: [0.75], 1: [0.9]}, channel='self'),
    ]
    assert [group.label for group in groups_of(members)] == ['stage1', 'channel=none', 'channel=self']
    assert summarise(groups_of(members))[0]['runs'] == 2


def test_stages_that_a_field_changes_stay_apart(rows):
    members = [row for lr in ('1', '2') for stage in ('stage1', 'stage2') for row in rows({0: [0.5]}, stage, lr=lr)]
    assert [group.label for group in groups_of(members)] == ['lr=1 stage1', 'lr=1', 'lr=2 stage1', 'lr=2']


def test_difference_is_paired(rows):
    """Of runs that differ far more by fold than by setting, it sees the setting."""
    random = np.random.default_rng(0)
    level = random.random((5, 3))
    members = [*rows(dict(enumerate(level.tolist())), variant='a')]
    better = (level + 0.02 + random.normal(0, 0.001, level.shape)).tolist()
    members += rows(dict(enumerate(better)), variant='b')
    found = compare(groups_of(members), 'a', 'b')
    assert found['pairs'] == 15
    assert found['ahead'] == 15
    assert found['difference'] == pytest.approx(0.02, abs=0.001)
    assert 0.018 < found['low'] < found['difference'] < found['high'] < 0.022


def test_only_whole_pairs_are_compared(rows):
    members = rows({0: [0.5, 0.6], 1: [0.7, None]}, variant='a') + rows({0: [0.6, None], 1: [0.9, 0.1]}, variant='b')
    found = compare(groups_of(members), 'a', 'b')
    assert (found['pairs'], round(found['difference'], 6)) == (2, 0.15)
    assert found['alone'] == ['a fold 1 seed 0', 'b fold 1 seed 1']
    assert '| without a partner: a fold 1 seed 0; b fold 1 seed 1 |' in markdown([], [found])


def test_an_interval_of_few_pairs_is_said_to_be_one(rows):
    texts = []
    for number in (1, 9, 10):
        groups = groups_of(rows({0: [0.5] * number}, variant='a') + rows({0: [0.6] * number}, variant='b'))
        texts.append(markdown([], [compare(groups, 'a', 'b')]))
    assert ['covers less than 95 %' in text for text in texts] == [False, True, False]


def test_what_is_not_there_cannot_be_compared(rows):
    groups = groups_of(rows({0: [0.5]}, variant='a') + rows({1: [0.5]}, variant='b'))
    with pytest.raises(UsageError, match='--compare c: not among a, b'):
        compare(groups, 'a', 'c')
    with pytest.raises(UsageError, match='no run of the same fold and seed'):
        compare(groups, 'a', 'b')


def test_steps_follow_the_number_of_defects(rows):
    members = []
    for count, value in ((5, 0.5), (20, 0.9), (10, 0.7)):
        members += rows({0: [value], 1: [value + 0.05]}, **{'data.num_positives': str(count)})
    found = steps(groups_of(members))
    assert [step['name'] for step in found] == [
        'num_positives=10 - num_positives=5',
        'num_positives=20 - num_positives=10',
    ]
    assert [round(step['difference'], 6) for step in found] == [0.2, 0.2]


def test_the_chosen_model_has_a_curve_and_steps_of_its_own(rows):
    members = []
    for count, values in ((5, (0.5, 0.6)), (10, (0.8, 0.7))):
        for stage, value in zip(('stage2_unguided', 'stage2'), values, strict=True):
            found = rows({0: [value], 1: [value]}, stage, **{'data.num_positives': str(count)})
            members += [row | dict(val_AP=row['test_AP']) for row in found]
    groups = groups_of(members)
    groups += with_or_without(groups)[0]
    curves = _curves([(group, list(by_seed(group, 'AP').values())) for group in groups]).axes[0].lines
    assert {line.get_label(): list(line.get_ydata()) for line in curves} == {
        'stage2_unguided': [0.5, 0.8],
        'stage2': [0.6, 0.7],
        'stage2_unguided or stage2': [0.6, 0.8],
    }
    assert sorted(round(step['difference'], 6) for step in steps(groups)) == [0.1, 0.2, 0.3]


def test_where_all_runs_of_a_number_failed_there_is_no_step(rows):
    members = rows({0: [None]}, **{'data.num_positives': '5'})
    for count in (10, 20):
        members += rows({0: [0.5 + count / 100]}, **{'data.num_positives': str(count)})
    assert [step['name'] for step in steps(groups_of(members))] == ['num_positives=20 - num_positives=10']


def test_steps_of_two_rows_are_not_mixed(rows):
    members = []
    for variant, gain in (('a', 0.1), ('b', 0.3)):
        for count in (5, 10):
            value = 0.5 + gain * (count == 10)
            members += rows({0: [value], 1: [value]}, **{'data.num_positives': str(count), 'variant': variant})
    assert [round(step['difference'], 6) for step in steps(groups_of(members))] == [0.1, 0.3]


@pytest.mark.parametrize('field', ['variant', 'data.num_positives'])
def test_a_picture_of_bars_or_curves(rows, field):
    members = [row for value in ('5', '10') for row in rows({0: [0.5, 0.7], 1: [0.6, 0.8]}, **{field: value})]
    assert draw(groups_of(members), 'AP').startswith(b'\x89PNG')


def test_the_file_has_a_column_for_each_number(rows, tmp_path):
    write_summary(summarise(groups_of(rows({0: [0.8], 1: [0.6]}))), tmp_path / 'summary.csv')
    (line,) = csv.DictReader((tmp_path / 'summary.csv').open())
    assert float(line['AP']) == pytest.approx(0.7)
    assert {'name', 'seeds', 'AP_std', 'AP_low', 'AP_high', 'FP', 'seconds'} <= line.keys()


def test_equal_runs_are_ahead_of_none(rows):
    groups = groups_of(rows({0: [0.5, 0.6]}, variant='a') + rows({0: [0.5, 0.7]}, variant='b'))
    assert compare(groups, 'a', 'b')['ahead'] == 1


def test_a_run_without_the_other_is_no_choice(rows):
    members = [
        row | dict(val_AP='0.5') for row in rows({0: [0.5], 1: [0.9]}, variant='a') + rows({0: [0.6]}, variant='b')
    ]
    assert [row['seed'] for row in better(groups_of(members), ['a', 'b']).rows] == ['0']
