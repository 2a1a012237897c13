from dataclasses import replace

import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.export.check import compare, refuse_what_differs, variations
from kgl_mm.export.quantise import calibration
from kgl_mm.inspection import Judge, Result, sources


class Inspector:
    """Says of each image what it is told to."""

    def __init__(self, probabilities, shift=0.0, cells=0, judge=Judge(('good', 'defect'))):  # noqa: B008
        self.probabilities, self.shift, self.cells, self.judge = probabilities, shift, cells, judge

    def stream(self, images, batch_size):
        for source, defect in zip(sources(images), self.probabilities, strict=True):
            heat = np.full((40, 50), 0.5, np.float32)
            heat.flat[: self.cells] += self.shift
            yield Result(source, (50, 40), (1 - defect, defect), heat, self.judge)


IMAGES, LABELS = [np.zeros((40, 50), np.uint8)] * 4, [0, 1, 0, 1]
SCORES = [0.1, 0.9, 0.2, 0.3]


def test_equal_ones_pass():
    found = compare(Inspector(SCORES), Inspector([s + 5e-5 for s in SCORES]), IMAGES, LABELS)
    assert (found.images, found.ap, found.turned) == (4, (1.0, 1.0), 0)
    assert found.scores == pytest.approx(5e-5)
    refuse_what_differs(found, 'a.onnx')


@pytest.mark.parametrize(
    ('other', 'by_gradients', 'sentence'),
    [
        (Inspector([0.1, 0.9, 0.2, 0.3005]), False, r'scores differ by 5.0e-04, at image 3 \(1e-04 allowed\)'),
        (Inspector([0.1, float('nan'), 0.2, 0.3]), False, 'scores differ by nan, at image 1'),
        (Inspector(SCORES, 2e-3, 1), False, r'maps differ by 2.0e-03 \(1e-03 allowed\)'),
        (Inspector(SCORES, 2e-3, 21), True, r'maps differ by 2.0e-03 \(1e-03 allowed\)'),
        (Inspector(SCORES, 0.2, 20), True, r'single pixels of maps differ by 2.0e-01 \(0.05 allowed\)'),
        (Inspector([0.1, 0.9, 0.4, 0.3]), False, 'the AP is 0.8333, not 1.0000'),
    ],
)
def test_what_differs_is_refused_and_says_by_how_much(other, by_gradients, sentence):
    found = compare(Inspector(SCORES), other, IMAGES, [] if 'nan' in sentence else LABELS, by_gradients)
    with pytest.raises(UsageError, match=rf'^a.onnx: not the same as the original on 4 images: .*{sentence}'):
        refuse_what_differs(found, 'a.onnx')


def test_single_cells_of_a_map_by_gradients_may_jump():
    found = compare(Inspector(SCORES), Inspector(SCORES, 0.01, 20), IMAGES, LABELS, by_gradients=True)
    refuse_what_differs(found, 'a.onnx')
    assert 'but for single pixels, within 1e-02' in str(found)


def test_without_labels_or_a_good_class():
    found = compare(Inspector(SCORES), Inspector(SCORES), IMAGES)
    assert found.ap is None
    judge = Judge(('dent', 'scratch'), has_good=False)
    found = compare(Inspector(SCORES, judge=judge), Inspector(SCORES, judge=judge), IMAGES, LABELS)
    assert found.ap == (pytest.approx(found.ap[0]),) * 2
    assert compare(Inspector(SCORES), Inspector([0.1, 0.9, 0.2, 0.6]), IMAGES).turned == 1
    assert not replace(found, jumps=0.01).faults()


def test_variations_are_of_many_sizes_and_kinds():
    images = variations([])
    assert len({image.shape[:2] for image in images}) > 4
    assert {image.ndim for image in images} == {2, 3}
    assert {image.dtype for image in images} == {np.dtype('uint8'), np.dtype('uint16')}


def test_a_better_ap_is_another_one_too():
    worse = [0.1, 0.9, 0.35, 0.3]
    with pytest.raises(UsageError, match=r'the AP is 1\.0000, not 0\.8333'):
        refuse_what_differs(compare(Inspector(worse), Inspector([0.1, 0.9, 0.2, 0.3]), IMAGES, LABELS), 'a')


def test_half_of_the_images_that_calibrate_are_defective_where_there_are_as_many():
    for good, defective, expected in ((100, 100, 32), (100, 5, 5), (5, 100, 59), (3, 2, 2)):
        labels = [0] * good + [1] * defective
        chosen = calibration([f'{label}/{i}' for i, label in enumerate(labels)], labels)
        assert len(chosen) == len(set(chosen)) == min(64, good + defective)
        assert sum(path.startswith('1') for path in chosen) == expected
