import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from kgl_mm.errors import UsageError
from kgl_mm.inspection import Judge, Result, Source, Threshold
from kgl_mm.visualization import overlay

GOOD, CHOSEN = Judge(('good', 'defect')), Threshold(0.3, True, 'f1')
KINDS = Judge(('good', 'dent', 'scratch'), threshold=CHOSEN)


def result(probabilities, judge=GOOD, heat=None, image=None):
    image = np.full((40, 60), 120, np.uint8) if image is None else image
    return Result(Source(image, 'part'), image.shape[1::-1], probabilities, heat, judge)


@pytest.mark.parametrize(
    ('probabilities', 'judge', 'label', 'defective', 'score'),
    [
        ((0.5, 0.5), GOOD, 'defect', True, 0.5),
        ((0.51, 0.49), GOOD, 'good', False, 0.49),
        ((0.6, 0.1, 0.3), KINDS, 'scratch', True, 0.4),  # defective, although good is the most probable class
        ((0.8, 0.1, 0.1), KINDS, 'good', False, 0.2),
        ((0.2, 0.8), Judge(('dent', 'scratch'), False), 'scratch', None, 0.8),
    ],
)
def test_label_score_and_verdict_agree(probabilities, judge, label, defective, score):
    found = result(probabilities, judge)
    assert (found.label, found.is_defective) == (label, defective)
    assert found.score == pytest.approx(score)
    facts = json.loads(json.dumps(found.as_dict()))
    assert facts['pred_class'] == label == judge.classes[facts['pred_label']]
    assert (facts['threshold'] is None) == (defective is None)


def test_whether_the_threshold_is_calibrated_shows_wherever_it_does():
    assert str(Threshold()) == '0.500 (not calibrated)'
    assert str(CHOSEN) == '0.300 (chosen on validation data for f1)'
    assert not result((0.5, 0.5)).as_dict()['calibrated']
    assert result((1, 0, 0), KINDS).as_dict()['calibrated']


def test_regions_are_those_of_a_defective_part_in_pixels_of_the_image():
    heat = np.zeros((4, 6), np.float32)
    heat[1, 2] = 0.9
    found = result((0.1, 0.9), heat=heat)
    assert [region.box for region in found.regions] == [(20, 10, 30, 20)]
    assert found.heat_map.shape == (40, 60)
    assert np.unravel_index(found.heat_map.argmax(), (40, 60))[1] in range(20, 30)
    assert result((0.9, 0.1), heat=heat).regions == []
    assert result((0.1, 0.9)).regions == []


@pytest.mark.parametrize('shape', [(40, 60), (1, 1), (5, 3000, 3), (900, 7, 4)])
@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_a_picture_of_any_image_is_drawn_and_saved(tmp_path, shape, kind):
    image = np.full(shape, 100, kind)
    found = result((0.1, 0.9), heat=np.random.default_rng(0).random((8, 8), np.float32), image=image)
    picture = found.draw()
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    found.save(tmp_path / 'deep/a.png')
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'deep/a.png')), picture)


def test_a_picture_is_no_larger_than_asked_for():
    assert max(result((0.1, 0.9), image=np.zeros((4000, 3000), np.uint8)).draw(longest=800).shape) <= 830


def test_a_map_is_as_hot_as_its_score_is_above_the_threshold():
    """A detector calls defective from 0.1, and its maps go as far."""
    heat, image = np.full((4, 4), 0.2, np.float32), np.full((40, 60, 3), 100, np.uint8)
    judge = Judge(('good', 'defect'), threshold=Threshold(0.1, True))
    hot = result((0.8, 0.2), judge, heat=heat, image=image).draw()
    hottest = result((0.8, 0.2), heat=np.ones((4, 4), np.float32), image=image).draw()
    faint = result((0.8, 0.2), heat=heat, image=image).draw()
    middle = np.s_[-20, 30]  # of the image, below the caption
    assert (hot[middle] == hottest[middle]).all()
    assert hot[middle][1] != faint[middle][1]


def test_drawing_leaves_the_array_as_it_was():
    image = np.full((40, 60, 3), 100, np.uint8)
    result((0.1, 0.9), heat=np.eye(4, dtype=np.float32), image=image).draw()
    result((0.1, 0.9), image=image).draw()
    assert (image == 100).all()


def test_a_picture_needs_the_name_of_one(tmp_path):
    with pytest.raises(UsageError, match='not the name of a picture'):
        result((0.5, 0.5)).save(tmp_path / 'a.xyz')


def test_neither_torch_nor_the_mm_packages_are_needed():
    code = (
        'import sys\n'
        'for name in ("torch", "torchvision", "mmengine", "mmcv", "mmpretrain"): sys.modules[name] = None\n'
        'import numpy as np\n'
        'from kgl_mm.inspection import Judge, Result, sources\n'
        'image, = sources(np.zeros((9, 9), np.uint8))\n'
        'heat = np.eye(3, dtype=np.float32)\n'
        'print(Result(image, (9, 9), (0.1, 0.9), heat, Judge(("good", "defect"))).draw().shape[2])\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == '3\n', done.stderr


def test_what_is_just_at_the_threshold_is_half_as_hot_as_can_be():
    image, judge = np.full((40, 60, 3), 100, np.uint8), Judge(('good', 'defect'), threshold=Threshold(0.1, True))
    middle = np.s_[-20, 30]
    half = result((0.5, 0.5), judge, heat=np.full((4, 4), 0.1, np.float32), image=image).draw()[middle]
    expected = overlay(image, np.full((4, 4), 0.5))[middle]
    assert (half == expected).all()
