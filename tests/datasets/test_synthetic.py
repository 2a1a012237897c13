import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kgl_mm.datasets.synthetic import KINDS, Surface, SurfaceSettings, draw_mark, draw_part, write_surfaces
from kgl_mm.errors import UsageError

SMALL = SurfaceSettings(num_train=(9, 4), num_val=(2, 1), num_test=(6, 5))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def draw(number: int, difficulty: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, masks and labels, half of them defective, 8 of each unit."""
    images, masks, labels = [], [], np.random.default_rng(seed).random(number) < 0.5
    for i, label in enumerate(labels):
        surface = Surface(np.random.default_rng((seed, i // 8)))
        image, mask = draw_part(surface, np.random.default_rng((seed, i, 1)), (64, 128), label, difficulty)
        images.append(image)
        masks.append(mask)
    return np.stack(images), np.stack(masks), labels


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('surfaces') / 'set'
    write_surfaces(folder, SMALL)
    return folder


def test_same_bytes_everywhere(written, tmp_path):
    np.random.seed(3)
    write_surfaces(tmp_path / 'other', SMALL)
    assert contents(tmp_path / 'other') == contents(written)
    write_surfaces(tmp_path / 'seed', SurfaceSettings(**{**vars(SMALL), 'seed': 1}))
    assert (tmp_path / 'seed/kos001/Part0.png').read_bytes() != (written / 'kos001/Part0.png').read_bytes()


def test_layout_counts_and_masks(written):
    units = json.loads((written / 'settings.json').read_text())['units']
    assert units == dict(train=['kos001', 'kos002'], val=['kos003'], test=['kos004', 'kos005'])
    for split, (good, defective) in dict(train=(9, 4), val=(2, 1), test=(6, 5)).items():
        labels = []
        for image_path in (p for unit in units[split] for p in (written / unit).glob('Part*.png')):
            image = cv2.imread(str(image_path), cv2.IMREAD_UNCHANGED)
            mask = cv2.imread(str(image_path.with_name(f'{image_path.stem}_label.bmp')), cv2.IMREAD_UNCHANGED)
            assert image.shape == mask.shape == (64, 128)
            assert image.dtype == np.uint8
            assert set(np.unique(mask)) <= {0, 255}
            labels.append(mask.any())
        assert (len(labels) - sum(labels), sum(labels)) == (good, defective)


def test_more_training_images_leave_the_test_pixels(written, tmp_path):
    few = SurfaceSettings(**{**vars(SMALL), 'num_train': (2, 1)})
    write_surfaces(tmp_path / 'few', few)
    assert (tmp_path / 'few/kos003/Part0.png').read_bytes() == (written / 'kos004/Part0.png').read_bytes()


@pytest.mark.parametrize('difficulty', [0, 0.5, 1])
def test_masks_are_the_defect(difficulty):
    """Inside the image, empty on good parts, and of a plausible size."""
    _, masks, labels = draw(60, difficulty)
    areas = (masks > 0).mean((1, 2))
    assert np.array_equal(areas > 0, labels)
    assert areas.max() < 0.1
    border = np.ones(masks.shape[1:], bool)
    border[1:-1, 1:-1] = False
    assert not masks[:, border].any()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(64, 128), (256, 96)])
def test_defects_and_counterparts_share_area_and_contrast(kind, size):
    def statistics(defective):
        marks = [draw_mark(np.random.default_rng(i), size, kind, defective, 0, 0.3) for i in range(60)]
        return np.mean([(alpha.sum(), contrast * alpha.max()) for alpha, contrast in marks], 0)

    np.testing.assert_allclose(statistics(True), statistics(False), rtol=0.2)


@pytest.mark.parametrize('difficulty', [0, 0.5])
def test_brightness_does_not_tell(difficulty):
    """At 50 % defects, a logistic regression on the statistics of an image stays under 0.6 AP."""
    images, _, labels = draw(1000, difficulty)
    flat = images.reshape(len(images), -1).astype(float)
    statistics = np.stack(
        [flat.mean(1), flat.std(1), flat.min(1), flat.max(1), *np.percentile(flat, [1, 99], axis=1)], 1
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    halves = slice(0, 500), slice(500, None)
    scores = [
        average_precision_score(labels[b], model.fit(statistics[a], labels[a]).decision_function(statistics[b]))
        for a, b in (halves, halves[::-1])
    ]
    assert max(scores) < 0.6


def test_written_once(written, tmp_path):
    folder = tmp_path / 'set'
    shutil.copytree(written, folder)
    (folder / 'kos001/Part0.png').write_bytes(b'mine')
    write_surfaces(folder, SMALL)
    assert (folder / 'kos001/Part0.png').read_bytes() == b'mine'
    with pytest.raises(UsageError, match='set: holds other data'):
        write_surfaces(folder, SurfaceSettings(**{**vars(SMALL), 'seed': 1}))


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted(plan):
        yield from plan[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_surfaces(tmp_path / 'set', SMALL, interrupted)
    assert not list(tmp_path.iterdir())


def _kill_in_the_middle(folder):
    def killed(plan):
        yield from plan[:5]
        os.kill(os.getpid(), signal.SIGKILL)

    cv2.setNumThreads(0)  # a fork has no threads of its parent
    write_surfaces(folder, SMALL, killed)


def test_a_kill_leaves_no_half_set(written, tmp_path):
    work = dict(target=_kill_in_the_middle, args=(tmp_path / 'set',), daemon=True)
    process = multiprocessing.get_context('fork').Process(**work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith('.set.')
    write_surfaces(tmp_path / 'set', SMALL)
    assert contents(tmp_path / 'set') == contents(written)


def test_two_writers_at_once(written, tmp_path):
    """Both start before either has finished; both end well, and one set stands."""
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(2)

    def write():
        cv2.setNumThreads(0)
        write_surfaces(tmp_path / 'set', SMALL, lambda plan: barrier.wait() is None or plan)

    processes = [context.Process(target=write, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ['set']
    assert contents(tmp_path / 'set') == contents(written)


def test_bad_settings():
    with pytest.raises(UsageError, match='difficulty is 2'):
        SurfaceSettings(difficulty=2)
    with pytest.raises(UsageError, match='size is'):
        SurfaceSettings(size=(32, 128))
    with pytest.raises(UsageError, match=r'num_train=20 is no pair \(good, defective\)'):
        SurfaceSettings(num_train=20)


def test_every_setting_changes_the_folder_name():
    others = dict(num_train=(1, 1), num_val=(1, 1), num_test=(1, 1), size=(96, 96), difficulty=0.7, seed=1)
    assert (
        len({SMALL.folder_name, *(SurfaceSettings(**{**vars(SMALL), k: v}).folder_name for k, v in others.items())})
        == 7
    )
