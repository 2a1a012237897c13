import numpy as np

from kgl_mm.report.doubts import doubts, least_trusted, tells_apart


def entries_of(shift, seed, flipped=()):
    random = np.random.default_rng(seed)
    labels = [int(index < 40) for index in range(200)]
    evidence = [random.normal(3 if label else -3) + shift for label in labels]
    return [
        dict(key=f'{seed}-{index}', label=1 - label if index in flipped else label, evidence=value)
        for index, (label, value) in enumerate(zip(labels, evidence, strict=True))
    ]


def test_flipped_labels_come_first():
    found = doubts([entries_of(0, 0, flipped=(3, 5, 100, 101, 102))])
    assert {doubt.key for doubt in found[:5]} == {'0-3', '0-5', '0-100', '0-101', '0-102'}


def test_sources_that_lean_to_a_side_are_compared_fairly():
    found = doubts([entries_of(8, 1, flipped=(3,)), entries_of(-8, 2, flipped=(100,))])
    assert {doubt.key for doubt in found[:2]} == {'1-3', '2-100'}
    assert found[2].against < 0.5
    assert tells_apart(found) > 0.95


def test_defects_that_stand_out_do_not_cast_doubt_on_plainer_ones():
    """Evidence of defects has a long tail: halfway to what is typical of them lies above many."""
    random = np.random.default_rng(0)
    good, plain, loud = random.normal(-8, 1, 60), random.normal(3, 1, 10), random.normal(30, 10, 10)
    hidden = [-7.5, -8.5]
    evidence, labels = [*good, *plain, *loud, *hidden], [0] * 60 + [1] * 22
    entries = [dict(key=str(i), label=y, evidence=e) for i, (e, y) in enumerate(zip(evidence, labels, strict=True))]
    found = doubts([entries])
    assert {doubt.key for doubt in found[:2]} == {'80', '81'}
    assert sum(doubt.against > 0 for doubt in found) == 2


def test_what_is_not_known_is_left_out():
    assert doubts([[dict(key='a', edited=True), dict(key='b', evidence=1.0), dict(key='c', label=1)]]) == []
    assert doubts([]) == []
    (only,) = doubts([[dict(key='a', label=1, evidence=-2.0)]])
    assert only.against == 2


def test_the_least_trusted_maps_are_of_defects_that_nobody_painted():
    entries = [
        dict(key='good', label=0, trust=0.0),
        dict(key='painted', label=1, trust=0.0, edited=True),
        dict(key='sure', label=1, trust=0.9),
        dict(key='unsure', label=1, trust=0.1),
    ]
    assert [entry['key'] for entry in least_trusted(entries, 2)] == ['unsure', 'sure']
