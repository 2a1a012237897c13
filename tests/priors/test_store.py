import json
import shutil
import tempfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kgl_mm.errors import UsageError
from kgl_mm.files import locked
from kgl_mm.priors import PriorStore
from kgl_mm.priors.folder import Folder

from .conftest import filled, some_map
from .test_index import ended, in_child


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1, width=32)),
    st.floats(1e-8, 1e6),
    st.sampled_from([8, 16]),
)
def test_round_trip_is_off_by_one_step_at_most(map, factor, bits):
    map = map * np.float32(factor)
    with tempfile.TemporaryDirectory() as root:
        PriorStore(root).begin('evidence', {}, bits=bits)
        PriorStore(root).write('x', map)
        store = PriorStore(root)
        back, entry = store.read('x'), store.entry('x')
        assert back.dtype == np.float32
        assert back.shape == map.shape
        assert np.abs(back - map).max() <= entry['scale']
        raw = cv2.imread(f'{root}/evidence/x.png', cv2.IMREAD_UNCHANGED)
        assert raw.dtype == f'uint{bits}'
        np.testing.assert_allclose(raw * entry['scale'], back, rtol=1e-6)
        assert entry['peak'] == map.max()
        assert entry['size'] == list(map.shape)


def test_extremes_of_float32_survive(tmp_path):
    store = PriorStore(tmp_path)
    for value in (1e-45, 1e-38, 3.4e38):
        store.write('x', np.float32([[0, value]]))
        assert store.read('x').tolist() == np.float32([[0, value]]).tolist()


def test_a_fraction_of_the_size_is_kept_and_read_at_any_size(tmp_path):
    store = PriorStore(tmp_path)
    store.begin('evidence', {}, fraction=0.25)
    map = some_map(shape=(40, 24))
    store.write('x', map)
    assert cv2.imread(str(tmp_path / 'evidence/x.png'), cv2.IMREAD_UNCHANGED).shape == (10, 6)
    small = cv2.resize(map, (6, 10), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (24, 40), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(store.read('x'), large, atol=1e-4)
    np.testing.assert_allclose(store.read('x', size=(10, 6)), small, atol=1e-4)
    assert store.read('x', size=(3, 100)).shape == (3, 100)
    assert store.entry('x')['peak'] == map.max()
    store.write('tiny', [[0.5]], image_size=(1, 2))
    assert store.read('tiny').tolist() == [[pytest.approx(0.5, abs=1e-4)] * 2]


def test_facts_layers_and_what_an_entry_says(tmp_path):
    store = filled(tmp_path)
    store.begin('gate', {'method': 'x'}, bits=8)
    store.write('a.jpg', np.ones((2, 2)), 'gate', image='f00', sizes=(1, 2))
    store = PriorStore(str(tmp_path))
    assert store.layers() == ['evidence', 'gate']
    assert store.source('gate') == {'method': 'x'}
    assert store.source() == {}
    assert store.keys() == ['a.jpg', 'kos01/Part5.jpg', 'kos01/ü 2.jpg']
    assert len(store) == 4
    entry = store.entry('a.jpg', 'gate')
    assert entry['image'] == 'f00'
    assert entry['sizes'] == [1, 2]
    assert 'a.jpg' in store
    assert ('a.jpg', 'gate') in store
    assert ('kos01/Part5.jpg', 'gate') not in store
    assert 'b.jpg' not in store
    assert (tmp_path / 'evidence/kos01/Part5.jpg.png').is_file()
    assert not store.is_edited('a.jpg')


def test_a_stale_layer_is_refused_with_what_differs(tmp_path):
    source = {'method': 'cam', 'checkpoint': {'stage1.pth': 'a1b2'}, 'size': (3, 4)}
    PriorStore(tmp_path).begin('evidence', source)
    store = PriorStore(tmp_path)
    store.begin('evidence', source)
    with pytest.raises(UsageError, match=r'stale: checkpoint.stage1.pth was a1b2, is c3d4; give another --out'):
        store.begin('evidence', source | {'checkpoint': {'stage1.pth': 'c3d4'}})
    with pytest.raises(UsageError, match=r'stale: bits was 16, is 8, fraction was 1.0, is 0.5, new was absent, is 1;'):
        store.begin('evidence', source | {'new': 1}, bits=8, fraction=0.5)
    assert store.source() == json.loads(json.dumps(source))


@pytest.mark.parametrize('arguments', [dict(bits=12), dict(fraction=0), dict(fraction=1.1), dict(source={'a': {1}})])
def test_wrong_settings_of_a_layer(arguments, tmp_path):
    with pytest.raises(UsageError, match=r'bits are 8 or 16|not JSON'):
        PriorStore(tmp_path).begin('evidence', **{'source': {}} | arguments)
    assert not list(tmp_path.iterdir())


def rewritten(path, how):
    """Paint a bright spot, as some editor would save it; returns what is to be read, at the size of the file."""
    gray = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    gray = np.zeros_like(gray)
    gray[1, 2] = 65535
    image = {
        '16 bit': gray,
        '8 bit': np.uint8(gray // 257),
        'colour': np.dstack([gray // 3, gray, gray // 2]),
        '8 bit colour': np.uint8(np.dstack([gray // 257, gray // 300, gray // 257])),
        'alpha': np.dstack([gray, gray, gray, np.full_like(gray, 65535)]),
        'other size': np.repeat(np.repeat(gray, 2, 0), 2, 1),
    }[how]
    assert cv2.imwrite(str(path), image)
    return gray / 65535


@pytest.mark.parametrize('how', ['16 bit', '8 bit', 'colour', '8 bit colour', 'alpha', 'other size'])
@pytest.mark.parametrize('compacted', [True, False])
def test_a_map_painted_over(how, compacted, tmp_path):
    store = PriorStore(tmp_path)
    store.begin('evidence', {}, fraction=0.5)
    for key in 'ab':
        store.write(key, 7 * some_map(shape=(12, 10)))
    if compacted:
        store.compact()
    expected = rewritten(tmp_path / 'evidence/a.png', how)
    for _ in range(3):
        store = PriorStore(tmp_path)
        assert store.is_edited('a')
        assert not store.is_edited('b')
        assert store.read('a').shape == (12, 10)
        np.testing.assert_allclose(store.read('a', size=(6, 5)), expected, atol=1e-6)
        assert store.entry('a')['white'] == 1
        assert store.verify() == (1, ['evidence/a'], [], [])
        assert str(store.verify()) == '1 as written, 1 edited by hand (evidence/a)'
        store.compact()
    store.rebuild()
    assert PriorStore(tmp_path).read('a').shape == (12, 10)
    store.write('a', some_map())
    assert not PriorStore(tmp_path).is_edited('a')
    assert str(store.verify()) == '2 as written'


@pytest.mark.parametrize('shape', [(12, 10), (3, 5), (40, 20)])
def test_a_mask_painted_in_place_of_a_map_and_back_again(shape, tmp_path):
    store = first = PriorStore(tmp_path)
    store.begin('evidence', {'method': 'cam'}, fraction=0.5)
    for key in ('kos01/a.jpg', 'b'):
        store.write(key, 7 * some_map(shape=(12, 10)), image='f00', label=1, trust=0.3, quality={'iou': 0.1})
    store.compact()
    made = (tmp_path / 'evidence/kos01/a.jpg.png').read_bytes()
    before = store.read('kos01/a.jpg')
    mask = np.zeros(shape, np.uint8)
    mask[1, 2:] = 9
    for painted in (np.ones(shape, bool), mask):
        store.paint('kos01/a.jpg', painted)
    for _ in range(2):
        for store in (first, PriorStore(tmp_path)):
            assert store.is_edited('kos01/a.jpg')
            assert store.is_mask('kos01/a.jpg')
            assert not store.is_mask('b')
            assert store.can_revert('kos01/a.jpg')
            assert not store.can_revert('b')
            assert store.read('kos01/a.jpg').shape == (12, 10)
            np.testing.assert_array_equal(store.read('kos01/a.jpg', size=shape), mask > 0)
            np.testing.assert_array_equal(store.read_before('kos01/a.jpg'), before)
            entry = store.entry('kos01/a.jpg')
            assert (entry['image'], entry['label'], entry['source_trust'], entry['peak']) == ('f00', 1, 0.3, 1)
            assert not {'trust', 'quality'} & entry.keys()
            assert store.verify() == (1, ['evidence/kos01/a.jpg'], [], [])
        store.rebuild()
    assert store.keys() == ['b', 'kos01/a.jpg']
    store.revert('kos01/a.jpg')
    assert (tmp_path / 'evidence/kos01/a.jpg.png').read_bytes() == made
    assert not PriorStore(tmp_path).is_edited('kos01/a.jpg')
    assert store.verify() == (2, [], [], [])
    assert store.read_before('kos01/a.jpg') is None
    with pytest.raises(UsageError, match='nothing to go back to'):
        store.revert('kos01/a.jpg')


def test_what_may_be_painted(tmp_path):
    store = filled(tmp_path, ['a'])
    for mask in (np.ones((2, 2, 3)), np.zeros((0, 2)), np.full((2, 2), -1)):
        with pytest.raises(UsageError, match='a prior'):
            store.paint('a', mask)
    with pytest.raises(UsageError, match="none of the 1 maps of evidence is 'c'"):
        store.paint('c', np.ones((2, 2)))
    with pytest.raises(UsageError, match='give a relative path'):
        store.paint('../a', np.ones((2, 2)))
    assert store.verify().ok == 1


def test_a_map_by_hand_is_a_mask_where_a_source_had_written_one(tmp_path):
    for name, source in (('made', {'method': 'cam'}), ('given', {})):
        store = PriorStore(tmp_path / name)
        store.begin('evidence', source)
        for key in 'ab':
            store.write(key, some_map())
        cv2.imwrite(str(tmp_path / name / 'evidence/a.png'), np.eye(6, 5, dtype=np.uint8) * 200)
        store = PriorStore(tmp_path / name)
        assert store.is_edited('a')
        assert store.is_mask('a') == bool(source)
        assert not store.is_mask('b')
        store.paint('a', np.eye(6, 5))
        assert store.is_mask('a')
        store.revert('a')
        assert store.is_edited('a')
        assert store.read('a').max() == pytest.approx(200 / 255)


def test_a_new_map_by_hand_and_a_copy(tmp_path):
    store = filled(tmp_path, ['a'])
    cv2.imwrite(str(tmp_path / 'evidence/new.png'), np.full((3, 4), 51, np.uint8))
    shutil.copy(tmp_path / 'evidence/a.png', tmp_path / 'evidence/b.png')
    assert 'new' in store
    assert store.is_edited('new')
    np.testing.assert_allclose(store.read('new'), np.full((3, 4), 0.2), rtol=1e-6)
    np.testing.assert_array_equal(store.read('a'), store.read('b'))
    assert store.entry('b')['key'] == 'b'
    assert store.verify() == (2, ['evidence/new'], [], [])
    store.compact()
    assert PriorStore(tmp_path).keys() == ['a', 'b', 'new']
    shutil.copytree(tmp_path / 'evidence', tmp_path / 'hand')
    store.compact()
    assert store.keys('hand') == ['a', 'b', 'new']
    assert store.source('hand') == {}
    assert store.layers() == ['evidence']
    shutil.rmtree(tmp_path / 'hand')
    store.rebuild()
    assert store.verify() == (2, ['evidence/new'], [], [])


def test_damage_is_found_and_told_from_edits(tmp_path):
    store = filled(tmp_path, ['a', 'b', 'c', 'd', 'e'])
    store.write('f', [[1]], 'other')
    folder = tmp_path / 'evidence'
    (folder / 'a.png').write_bytes((folder / 'a.png').read_bytes()[:-20])
    data = bytearray((folder / 'b.png').read_bytes())
    data[-30] ^= 1
    (folder / 'b.png').write_bytes(data)
    (folder / 'c.png').write_bytes(b'')
    (folder / 'd.png').unlink()
    expected = (1, [], ['evidence/a', 'evidence/b', 'evidence/c'], ['evidence/d'])
    assert store.verify('evidence') == expected
    assert store.verify('other') == (1, [], [], [])
    assert str(store.verify()) == '2 as written, 3 damaged (evidence/a, ...), 1 missing (evidence/d)'
    for key in 'abc':
        with pytest.raises(UsageError, match=r'evidence/.\.png is damaged, .*write it again'):
            store.read(key)
    store.compact()
    assert store.verify('evidence') == expected
    store.rebuild()
    assert store.verify('evidence') == (*expected[:3], [])
    (tmp_path / 'manifest.jsonl').unlink()
    assert PriorStore(tmp_path).verify('evidence')[2] == expected[2]


def test_mistakes_get_one_sentence(tmp_path):
    nothing = PriorStore(tmp_path / 'none')
    for call in (lambda: nothing.read('a'), nothing.keys, nothing.verify, nothing.compact, nothing.rebuild):
        with pytest.raises(UsageError, match='there is no store of priors'):
            call()
    assert not (tmp_path / 'none').exists()
    store = filled(tmp_path / 'store')
    with pytest.raises(UsageError, match=r"none of the 3 maps of evidence is 'kos01/Part6.jpg'.*'kos01/Part5.jpg'"):
        store.read('kos01/Part6.jpg')
    for call in (store.keys, store.verify, store.source, lambda layer: store.read('a.jpg', layer)):
        with pytest.raises(UsageError, match="no layer 'gate', only evidence"):
            call('gate')
    for facts, message in (
        (dict(white=2), 'the store itself sets white'),
        (dict(x=np.nan), 'JSON'),
        (dict(x=b''), 'J'),
    ):
        with pytest.raises(UsageError, match=message):
            store.write('x', [[1]], **facts)
    for map, size in (([1], None), ([[-1]], None), ([[np.nan]], None), ([[1]], (0, 1)), ([[1]], 5)):
        with pytest.raises(UsageError, match=r'prior|\(height, width\)'):
            store.write('x', map, image_size=size)
    (tmp_path / 'store/evidence/a.png').mkdir()
    (tmp_path / 'store/evidence/file').touch()
    for key, reason in (('a', 'Is a directory'), ('file/x', 'Not a directory|File exists')):
        with pytest.raises(UsageError, match=f'evidence/{key}.png: it cannot be written .({reason})'):
            store.write(key, [[1]])
    assert not list(tmp_path.rglob('*.tmp'))
    assert store.verify().ok == 3


@pytest.mark.parametrize('text', ['', '{', '[]', '{"version": 1, "layers": {"a": {}}}', '{"version": 1, "layers": 3}'])
def test_a_header_that_is_damaged_or_from_the_future(text, tmp_path):
    filled(tmp_path)
    (tmp_path / 'store.json').write_text(text or ' ')
    with pytest.raises(UsageError, match=r'store\.json is damaged'):
        PriorStore(tmp_path)
    (tmp_path / 'store.json').write_text('{"version": 2, "layers": {}}')
    with pytest.raises(UsageError, match='format 2, newer than 1: update'):
        PriorStore(tmp_path)


def test_a_kill_while_a_mask_is_painted_or_taken_back_loses_no_map(tmp_path, monkeypatch):
    store, replace, done = filled(tmp_path, ['a']), Folder.replace, []
    made = (tmp_path / 'evidence/a.png').read_bytes()

    def dies_the_second_time(self, path, data):
        if done:
            raise KeyboardInterrupt
        done.append(path)
        replace(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, 'replace', dies_the_second_time)
        with pytest.raises(KeyboardInterrupt):
            store.paint('a', np.eye(6, 5))
        assert made in [path.read_bytes() for path in tmp_path.rglob('a.png')]
    PriorStore(tmp_path).paint('a', np.eye(6, 5))
    with monkeypatch.context() as patch:
        patch.setattr(Folder, 'replace', dies_the_second_time)
        with pytest.raises(KeyboardInterrupt):
            store.revert('a')
    PriorStore(tmp_path).revert('a')
    assert (tmp_path / 'evidence/a.png').read_bytes() == made


def test_a_layer_is_begun_when_nobody_else_begins_one(tmp_path):
    filled(tmp_path / 'store')

    def hold():
        with locked(tmp_path / 'store'):
            (tmp_path / 'held').touch()
            import time

            time.sleep(0.5)
            (tmp_path / 'released').touch()

    child = in_child(hold)
    while not (tmp_path / 'held').exists():
        assert child.is_alive()
    PriorStore(tmp_path / 'store').begin('gate', {})
    assert (tmp_path / 'released').exists()
    ended(child)


@pytest.mark.parametrize('name', ['size', 'white', 'scale', 'peak', 'pixels', 'digest', 'stamp', 'edited', 'mask'])
def test_what_the_store_itself_says_is_no_fact(tmp_path, name):
    with pytest.raises(UsageError, match=f'the store itself sets {name}'):
        PriorStore(tmp_path).write('a', [[1]], **{name: True})


def test_a_damaged_map_is_not_forgotten(tmp_path):
    store = filled(tmp_path, ['a', 'b'])
    path = tmp_path / 'evidence/a.png'
    path.write_bytes(path.read_bytes()[:-20])
    store.rebuild()
    assert PriorStore(tmp_path).keys() == ['a', 'b']
