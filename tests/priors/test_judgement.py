import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgl_mm.priors.judgement import judge


def entries(evidence, trust=0.9, labels=None, **more):
    return [dict(evidence=float(e), trust=trust, peak=0.5, **more) for e in evidence]


def test_a_source_that_knows_is_trusted_and_one_that_guesses_is_not():
    labels = [0, 0, 0, 1, 1]
    assert judge(entries([0, 1, 2, 3, 4]), labels).weight == 1
    guess = judge(entries([4, 3, 2, 1, 0]), labels)
    assert guess.weight == 0
    assert guess.weak
    assert 'AUROC 0.00 (chance 0.50)' in guess.reason
    assert 'AP 0.33 (chance 0.40) on its training images' in guess.reason  # (1/4 + 2/5) / 2


def test_images_that_were_left_out_count_as_validation_data():
    labels, evidence = [0] * 8 + [1] * 2, [*range(8), 7.5, 3.5]  # 12 of 16 pairs in order: AUROC 0.75, skill 0.5
    assert judge(entries(evidence), labels, left_out=True).weight == 1
    assert judge(entries(evidence), labels).weight == pytest.approx((0.5 - 0.3) / 0.3, abs=1e-3)
    assert 'on images left out' in judge(entries(evidence), labels, left_out=True).reason


@pytest.mark.parametrize(('score', 'weight'), [(0.4, 0), (0.6, 0), (0.675, 1 / 2), (0.75, 1), (1.0, 1)])
def test_skill_on_validation_data_is_enough(score, weight):
    validation = dict(AUROC=score, AP=0.3, num_defects=10, num_images=50)
    found = judge(entries([1, 0]), [0, 1], validation)  # on the images themselves it knows nothing
    assert found.weight == pytest.approx(weight, abs=1e-3)
    assert 'AP 0.30 (chance 0.20) on validation data' in found.reason
    assert 'AUROC 0.00 (chance 0.50)' in found.reason


def test_a_source_that_is_lost_on_other_images_may_know_its_own():
    validation = dict(AUROC=0.5, AP=0.2, num_defects=10, num_images=50)
    assert judge(entries([0, 1, 2, 3]), [0, 0, 1, 1], validation).weight == 1
    assert judge(entries([0, 3, 2, 1]), [0, 0, 1, 1], validation).weight == 0


@pytest.mark.parametrize(('trust', 'weight'), [(-0.5, 0), (0.1, 0), (0.2, 0.5), (0.3, 1), (0.9, 1)])
def test_maps_that_change_under_flips_count_less(trust, weight):
    found = judge(entries([0, 1, 2], trust), [0, 1, 1])
    assert found.weight == pytest.approx(weight)
    assert f'agree by {trust:.2f}' in found.reason


def test_of_a_source_that_no_label_has_taught_agreement_alone_counts():
    validation = dict(AUROC=0.1, AP=0.1, num_defects=1, num_images=2)
    found = judge(entries([3, 2, 1], 0.2), [0, 1, 1], validation, by_skill=False)
    assert found.weight == pytest.approx(0.5)
    assert 'AUROC' not in found.reason


def test_agreement_is_that_of_defective_images():
    mixed = entries([0], trust=-1.0) + entries([1, 2], trust=1.0)
    assert judge(mixed, [0, 1, 1]).weight == 1


def test_what_a_person_painted_is_trusted():
    assert judge([dict(edited=True, peak=1.0)] * 3, [0, 1, 1]).weight == 1
    assert judge([dict(peak=1.0)] * 3, [0, 1, 1]).weight == 1  # of a source that says nothing of itself
    assert judge([dict(edited=True, peak=1.0), *entries([5, 6, 1])], [1, 0, 0, 1]).weight < 1


def test_good_images_that_glow_are_told():
    found = judge([dict(peak=0.1), dict(peak=0.8), dict(peak=0.8)], [0, 1, 1])
    assert 'good images glow 0.12 times as bright' in found.reason


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5), st.floats(-1, 1)), min_size=1, max_size=30))
def test_a_weight_is_a_share_whatever_comes(images):
    maps = [dict(evidence=e, trust=t, peak=abs(e)) for _, e, t in images]
    found = judge(maps, np.array([label for label, _, _ in images]))
    assert 0 <= found.weight <= 1
    assert found.reason


def test_guessing_gives_no_weight_on_average():
    """What a network of random weights says of images has nothing to do with their labels."""
    random = np.random.default_rng(0)
    labels = (
        np.arange(200) < 20
    )  # the AUROC of guesses is then 0.5 with a deviation of 0.07, and 0.65 the first to count
    weights = [judge(entries(random.normal(size=200)), labels).weight for _ in range(200)]
    assert np.mean(np.array(weights) > 0) < 0.05
    assert max(weights) < 0.5
