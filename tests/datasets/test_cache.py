import multiprocessing
import os
import warnings
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms import (
    BaseTransform,
    CenterCrop,
    LoadImageFromFile,
    Normalize,
    Pad,
    RandomFlip,
    RandomResize,
    Resize,
)
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import ResizeEdge

from kgl_mm.datasets import cache as cache_module
from kgl_mm.datasets.cache import PipelineCache
from kgl_mm.datasets.transforms import LoadMask
from kgl_mm.errors import UsageError


def write_image(path, seed, shape=(40, 30, 3)):
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    assert cv2.imwrite(str(path), image)
    return image


def pipeline(scale=(24, 32)):
    return Compose([LoadImageFromFile(), Resize(scale), RandomFlip(0.5)]).transforms


@pytest.fixture
def infos(tmp_path):
    for i in range(5):
        write_image(tmp_path / f'{i}.png', i)
    return [
        dict(img_path=str(tmp_path / f'{i}.png'), gt_label=i % 2, mask_path=None, unit=f'u{i}', sample_idx=i)
        for i in range(5)
    ]


@pytest.fixture(params=['memory', 'folder'])
def where(request, tmp_path):
    return 'memory' if request.param == 'memory' else str(tmp_path / 'deep' / 'cache')


class Counted:
    """The loads of a cache, counted."""

    def __init__(self, cache):
        self.loads = 0
        load = cache.prefix[0].transform

        def counting(results):
            self.loads += 1
            return load(results)

        cache.prefix[0] = counting


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert type(value) is type(right[name]), name
        if isinstance(value, np.ndarray):
            assert value.dtype == right[name].dtype
            np.testing.assert_array_equal(value, right[name])
        else:
            assert value == right[name], name


def run(cache, info):
    results = cache(dict(info))
    for transform in cache.rest:
        results = transform(results)
    return results


def uncached(info, transforms=None):
    return Compose(transforms or pipeline())(dict(info))


def test_results_are_those_of_the_pipeline_bit_for_bit(infos, where):
    cache = PipelineCache(pipeline(), where)
    count = Counted(cache)
    for epoch in range(3):
        for i, info in enumerate(infos):
            np.random.seed(10 * epoch + i)
            expected = uncached(info)
            np.random.seed(10 * epoch + i)
            results = run(cache, info)
            assert_same(expected, results)
            results['img'][:] = 0  # as a later transform may do
    assert count.loads == len(infos)


@pytest.mark.parametrize('annotated', ['gt_seg_map', 'gt_bboxes'])
def test_a_sample_with_annotations_of_its_own_is_not_cached(infos, where, annotated):
    cache = PipelineCache([LoadImageFromFile(), Resize((15, 20))], where)
    count = Counted(cache)
    for offset in (0.0, 4.0):
        value = np.full((40, 30), offset) if annotated == 'gt_seg_map' else np.array([[offset, 0, 20, 30]])
        info = infos[0] | {annotated: value}
        assert_same(uncached(info, [LoadImageFromFile(), Resize((15, 20))]), run(cache, info))
    assert count.loads == 2


def test_the_other_values_come_from_the_sample(infos, where):
    cache = PipelineCache(pipeline(), where)
    cache(dict(infos[0]))
    renamed = infos[0] | dict(unit='another', sample_idx=9)
    results = cache(dict(renamed))
    assert {name: results[name] for name in renamed} == renamed


def test_masks_that_hang_on_the_label(infos, where):
    mask = Path(infos[0]['img_path']).with_name('mask.png')
    write_image(mask, 0, (40, 30))
    transforms = [LoadImageFromFile(), LoadMask(), Resize((15, 20))]
    cache = PipelineCache(transforms, where)
    assert cache.rest == []
    for _ in range(2):
        for change in (dict(gt_label=0), dict(gt_label=1), dict(gt_label=1, mask_path=str(mask))):
            info = infos[0] | change
            assert_same(uncached(info, transforms), cache(dict(info)))
    write_image(mask, 7, (40, 30))
    os.utime(mask, ns=(1, 1))
    assert_same(uncached(info, transforms), cache(dict(info)))


def test_a_changed_image_gives_its_new_content(infos, where):
    cache = PipelineCache(pipeline()[:2], where)
    path = infos[0]['img_path']
    old = cache(dict(infos[0]))['img']
    write_image(path, 99)
    os.utime(path, ns=(1, 1))
    new = cache(dict(infos[0]))['img']
    assert (new != old).any()
    np.testing.assert_array_equal(new, uncached(infos[0], pipeline()[:2])['img'])


def test_settings_are_part_of_the_key(infos, tmp_path):
    for scale in ((24, 32), (32, 24)):
        cache = PipelineCache(pipeline(scale)[:2], str(tmp_path / 'cache'))
        assert cache(dict(infos[0]))['img'].shape[:2] == scale[::-1]
    assert len(list((tmp_path / 'cache').iterdir())) == 2


def test_runs_share_a_folder(infos, tmp_path):
    PipelineCache(pipeline(), str(tmp_path / 'cache')).fill(infos)
    later = PipelineCache(pipeline(), str(tmp_path / 'cache'))
    count = Counted(later)
    for info in infos:
        later(dict(info))
    assert count.loads == 0


@pytest.mark.parametrize(('times', 'shown'), [(40, []), (41, [205])])
def test_memory_is_filled_before_use(infos, monkeypatch, times, shown):
    bars = []
    monkeypatch.setattr('kgl_mm.datasets.cache.track', lambda tasks, _: bars.append(len(tasks)) or tasks)
    cache = PipelineCache(pipeline(), 'memory')
    count = Counted(cache)
    cache.fill(infos * times)
    cache(dict(infos[3]))
    assert count.loads == 5
    assert bars == shown


def test_only_leading_deterministic_transforms_are_taken():
    class Resize(BaseTransform):  # a user's own, of whose behaviour nothing is known
        def transform(self, results):
            return results

    load, edge, crop, pad = LoadImageFromFile(), ResizeEdge(24), CenterCrop(20), Pad(size=(24, 24))
    for stop in (RandomFlip(0.5), RandomResize((24, 32), (0.5, 2)), Normalize([0], [1]), Resize()):
        cache = PipelineCache([load, edge, crop, pad, stop, load], 'memory')
        assert cache.prefix == [load, edge, crop, pad]
        assert cache.rest == [stop, load]


@pytest.mark.parametrize(
    'transforms',
    [
        [LoadImageFromFile('color'), ResizeEdge(24), CenterCrop(20)],
        [LoadImageFromFile(color_type='grayscale'), Resize(scale_factor=0.5, keep_ratio=True), Pad(size_divisor=32)],
        [LoadImageFromFile(to_float32=True, imdecode_backend='pillow'), CenterCrop(64, auto_pad=True)],
    ],
)
def test_each_transform_comes_back_with_all_it_adds(infos, tmp_path, transforms):
    for _ in range(2):
        cache = PipelineCache(transforms, str(tmp_path / 'cache'))
        assert_same(uncached(infos[1], transforms), cache(dict(infos[1])))
    assert len(list((tmp_path / 'cache').glob('*.npz'))) == 1


def test_a_pipeline_that_cannot_be_cached_is_named_and_runs(infos, monkeypatch):
    said = []
    monkeypatch.setattr('kgl_mm.datasets.cache.print_log', lambda message, **_: said.append(message))
    cache = PipelineCache([RandomFlip(0.5), LoadImageFromFile()], 'memory')
    assert cache(dict(infos[0])) == infos[0]
    assert len(said) == 1
    assert 'begins with RandomFlip' in said[0]


def test_a_missing_image_is_the_loaders_to_report(infos, where):
    cache = PipelineCache(pipeline(), where)
    with pytest.raises(FileNotFoundError, match=r'gone\.png'):
        cache(dict(img_path='gone.png', gt_label=0))
    forgiving = PipelineCache([LoadImageFromFile(ignore_empty=True)], where)
    assert forgiving(dict(img_path='gone.png', gt_label=0)) is None
    empty = Path(infos[0]['img_path'])
    empty.write_bytes(b'')
    assert forgiving(dict(infos[0])) is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_ignored_and_written_anew(infos, tmp_path, data):
    cache = PipelineCache(pipeline()[:2], str(tmp_path / 'cache'))
    expected = cache(dict(infos[0]))
    (entry,) = (tmp_path / 'cache').iterdir()
    content = entry.read_bytes()
    if data.draw(st.booleans(), 'cut'):
        damaged = content[: data.draw(st.integers(0, len(content) - 1), 'length')]
    else:
        damaged = bytearray(content)
        damaged[data.draw(st.integers(0, len(content) - 1), 'place')] ^= data.draw(st.integers(1, 255), 'bits')
    entry.write_bytes(damaged)
    assert_same(expected, cache(dict(infos[0])))
    assert_same(expected, PipelineCache(pipeline()[:2], str(tmp_path / 'cache'))(dict(infos[0])))


def test_a_crafted_file_runs_nothing(infos, tmp_path):
    class Crafted:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'owned',)

    cache = PipelineCache(pipeline()[:2], str(tmp_path / 'cache'))
    expected = cache(dict(infos[0]))
    (entry,) = (tmp_path / 'cache').iterdir()
    sound = entry.read_bytes()
    with entry.open('wb') as file:
        np.savez(file, np.array(Crafted(), dtype=object))
    assert_same(expected, cache(dict(infos[0])))
    assert not (tmp_path / 'owned').exists()
    assert len(entry.read_bytes()) == len(sound)


@pytest.mark.parametrize('value', [{1, 2}, float('nan'), np.float64(0.5), [np.zeros(2)], np.array([None])])
def test_what_is_no_literal_stays_off_the_disk(infos, tmp_path, value):
    class Resize(BaseTransform):
        def transform(self, results):
            return results | dict(extra=value)

    Resize.__module__ = 'mmcv.transforms'
    cache = PipelineCache([LoadImageFromFile(), Resize()], str(tmp_path / 'cache'))
    for _ in range(2):
        assert cache(dict(infos[0]))['extra'] is value
    assert list((tmp_path / 'cache').iterdir()) == []


@pytest.mark.parametrize('value', [(1, (2.5, 'a')), [1, {'k': (True, None)}], b'x', -1e300])
def test_literals_keep_their_types(infos, tmp_path, value):
    class Resize(BaseTransform):
        def transform(self, results):
            return results | dict(extra=value)

    Resize.__module__ = 'mmcv.transforms'
    cache = PipelineCache([LoadImageFromFile(), Resize()], str(tmp_path / 'cache'))
    cache(dict(infos[0]))
    again = cache(dict(infos[0]))['extra']
    assert repr(again) == repr(value)
    assert len(list((tmp_path / 'cache').glob('*.npz'))) == 1


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='file/cache: cannot write the cache there'):
        PipelineCache(pipeline(), str(tmp_path / 'file' / 'cache'))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def read_only(self):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'touch', read_only)  # file modes do not stop root
    with pytest.raises(UsageError, match='Permission denied'):
        PipelineCache(pipeline(), str(tmp_path))


def test_a_full_disk_stops_nothing(infos, tmp_path, monkeypatch):
    def full(file, *args):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    cache = PipelineCache(pipeline()[:2], str(tmp_path / 'cache'))
    monkeypatch.setattr(np, 'savez', full)
    with pytest.warns(UserWarning, match='No space left'):
        results = cache(dict(infos[0]))
    assert_same(uncached(infos[0], pipeline()[:2]), results)
    assert list((tmp_path / 'cache').iterdir()) == []


def use(folder, infos, start, failures):
    cache = PipelineCache(pipeline()[:2], folder)
    warnings.simplefilter('error')  # what the two spoil for each other would only be warned of
    start.wait(60)
    for _ in range(20):
        for info in infos:
            for path in Path(folder).glob('*.npz'):
                path.unlink(missing_ok=True)  # so that both write all the time
            try:
                assert_same(uncached(info, pipeline()[:2]), cache(dict(info)))
            except BaseException as error:
                failures.put(repr(error))
                raise


def test_two_processes_write_at_once(infos, tmp_path):
    context = multiprocessing.get_context('fork')
    start, failures = context.Barrier(2), context.Queue()
    folder = str(tmp_path / 'cache')
    processes = [context.Process(target=use, args=(folder, infos, start, failures), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0], failures.get(timeout=5)
    assert not list(Path(folder).glob('.*')), 'temporary files are left'


def test_what_the_cache_keeps_belongs_to_a_version_and_to_a_nanosecond(tmp_path, monkeypatch):
    path, info = tmp_path / 'a.bmp', dict(img_path=str(tmp_path / 'a.bmp'), gt_label=0)
    for time, shade in ((10**18, 10), (10**18 + 1, 20)):
        cv2.imwrite(str(path), np.full((4, 4, 3), shade, np.uint8))
        os.utime(path, ns=(time, time))
        assert PipelineCache([mmcv.LoadImageFromFile()], str(tmp_path / 'cache'))(dict(info))['img'].max() == shade
    monkeypatch.setattr(cache_module, 'VERSIONS', ['later'])
    later = PipelineCache([mmcv.LoadImageFromFile()], str(tmp_path / 'cache'))
    later(dict(info))
    assert len(list((tmp_path / 'cache').glob('*.npz'))) == 3
