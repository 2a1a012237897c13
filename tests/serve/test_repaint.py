"""Which maps a person sees first, and what becomes of what is painted."""

import json
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorStore, binarize
from kgl_mm.report.data import Run, Stage
from kgl_mm.serve import gallery as gallery_module
from kgl_mm.serve import open_gallery, paint_masks, repaint_app
from kgl_mm.serve import repaint as module

from .conftest import as_png, client, picture
from .test_app import bomb


@pytest.fixture
def page(gallery):
    return client(repaint_app(gallery, ['localhost']))


def decoded(answer):
    assert answer.status_code == 200
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def stroke(shape=(40, 60)):
    mask = np.zeros(shape, np.uint8)
    mask[shape[0] // 4, : shape[1] // 2] = 1
    return mask


def test_the_least_trusted_maps_of_defective_images_come_first(page):
    found = page.get('/api/maps').json()
    assert [one['name'] for one in found['maps']] == [f'bad/d{i}.png' for i in (1, 2, 0, 3)] + ['good/good.png']
    assert [one['trust'] for one in found['maps']] == [0.2, 0.5, 0.9, None, 0.1]
    assert not any(one['edited'] or one['revertible'] for one in found['maps'])
    assert '--priors' in found['command']


def test_a_map_is_shown_with_what_it_would_teach(page, store):
    image, heat, mask = (decoded(page.get(f'/api/maps/0/{what}')) for what in ('image', 'heat', 'mask'))
    assert image.shape == (40, 60, 3)
    assert heat.shape == mask.shape == (40, 60)
    assert heat.max() == 255  # relative to its own peak
    np.testing.assert_array_equal(mask, 255 * binarize(store.read('bad/d1.png')))
    assert not decoded(page.get('/api/maps/4/mask')).any()  # of a good image
    small = decoded(page.get('/api/maps/0/thumbnail'))
    assert small.shape == (40, 60, 3)


@pytest.mark.parametrize('shape', [(40, 60), (20, 30), (400, 600), (41, 60)])
def test_what_is_painted_is_a_mask_edited_by_hand_and_can_be_taken_back(page, store, shape):
    made = decoded(page.get('/api/maps/0/heat'))
    for number in range(2):
        found = page.post('/api/maps/0', content=as_png(stroke(shape)))
        assert found.status_code == 200
        assert found.json() == dict(
            number=0, name='bad/d1.png', defective=True, trust=0.2, edited=True, revertible=True
        ), number
        fresh = PriorStore(store.root)
        assert fresh.verify().edited == ['evidence/bad/d1.png']
        assert fresh.is_mask('bad/d1.png')
        np.testing.assert_array_equal(fresh.read('bad/d1.png', size=shape), stroke(shape))
    np.testing.assert_array_equal(decoded(page.get('/api/maps/0/heat')), made)  # still that of the source
    assert (decoded(page.get('/api/maps/0/mask')) > 0).any()
    assert [one['edited'] for one in page.get('/api/maps').json()['maps']] == [True, False, False, False, False]
    assert page.post('/api/maps/0/revert').json()['edited'] is False
    assert PriorStore(store.root).verify() == (5, [], [], [])
    assert 'nothing to go back to' in page.post('/api/maps/0/revert').json()['error']


def test_the_order_stays_when_maps_are_edited(gallery, store, tmp_path):
    names = [place.key for place in gallery.places]
    for number in (0, 2, 4):
        gallery.save(number, as_png(stroke()))
    PriorStore(store.root).compact()
    assert [place.key for place in open_gallery(store.root, tmp_path / 'images').places] == names


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'', 'not a mask as a PNG file'),
        (b'none', 'not a mask as a PNG file'),
        (picture(suffix='.jpg'), 'not a mask as a PNG file'),
        (as_png(stroke())[:-20], 'it is cut'),
        (as_png(stroke((60, 40))), 'a mask of 40 x 60 pixels for an image of 60 x 40'),
    ],
)
def test_what_is_no_mask_is_refused(page, store, content, sentence):
    found = page.post('/api/maps/0', content=content)
    assert found.status_code == 400
    assert sentence in found.json()['error']
    assert store.verify().ok == 5


def test_nothing_but_its_maps_can_be_written(page, store, monkeypatch):
    for path, status in {
        '/api/maps/5': 400,
        '/api/maps/-1': 404,
        '/api/maps/../../x': 404,
        '/api/maps/bad%2Fd1.png': 404,
        '/api/maps/99999999999999999999': 400,
    }.items():
        assert page.post(path, content=as_png(stroke())).status_code == status, path
    assert page.get('/api/maps/7/image').json()['error'] == 'map 7: there are 5'
    headers = dict(origin='http://evil.example')
    for path in ('/api/maps/0', '/api/maps/0/revert'):
        assert page.post(path, content=as_png(stroke()), headers=headers).status_code == 403
    monkeypatch.setattr(module, 'MOST_BYTES', 10)
    assert page.post('/api/maps/0', content=as_png(stroke())).status_code == 413
    assert store.verify() == (5, [], [], [])


def test_a_mask_of_nothing_and_of_everything(gallery):
    gallery.save(0, as_png(np.zeros((40, 60))))
    assert not gallery.mask(0).any()
    gallery.save(1, as_png(np.ones((40, 60))))
    assert gallery.mask(1).all()


def test_an_image_that_is_gone_is_said(page, tmp_path):
    (tmp_path / 'images/bad/d1.png').unlink()
    found = page.get('/api/maps/0/image')
    assert found.status_code == 400
    assert 'cannot be read as an image' in found.json()['error']
    assert page.get('/api/maps/1/image').status_code == 200


def test_a_large_image_is_painted_smaller(store, tmp_path):
    (tmp_path / 'images/bad/d1.png').write_bytes(picture(shape=(2000, 3000)))
    gallery = open_gallery(store.root, tmp_path / 'images')
    assert gallery.image(0).shape == (1067, 1600, 3)
    assert gallery.mask(0).shape == gallery.heat(0).shape == (1067, 1600)
    gallery.save(0, as_png(gallery.mask(0)))


def test_a_map_that_a_person_put_there_is_kept_too(gallery, store):
    path = f'{store.root}/evidence/bad/d2.png.png'
    cv2.imwrite(path, np.full((40, 60), 77, np.uint8))
    assert gallery.facts(1)['edited']
    assert not gallery.facts(1)['revertible']
    gallery.save(1, as_png(stroke()))
    gallery.revert(1)
    assert store.read('bad/d2.png').max() == pytest.approx(77 / 255)


@pytest.mark.parametrize(
    ('target', 'data', 'sentence'),
    [
        ('nowhere', None, 'no such work directory or store'),
        ('images', None, 'neither the work directory'),
        ('store', None, 'say where its images are: --data DIR'),
        ('store', 'nowhere', '--data .*nowhere: no such folder'),
        ('store', 'store', 'none of the 5 maps of evidence belongs to an image'),
    ],
)
def test_what_cannot_be_opened_is_said(store, tmp_path, target, data, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_gallery(tmp_path / target, data and tmp_path / data)


@pytest.fixture
def masked(gallery, tmp_path):
    """The gallery, and masks of three of its images."""
    for place in gallery.places:
        if place.key in ('bad/d0.png', 'bad/d1.png', 'bad/d2.png', 'good/good.png'):
            place.mask_path = str(tmp_path / f'{place.key[-6:-4]}_mask.png')
            cv2.imwrite(place.mask_path, 255 * stroke())
    return gallery


@pytest.mark.parametrize(('steps', 'words'), [([], 'CONFIG'), ([dict(type='kgl_mm.LoadPrior')], 'own.py')])
def test_the_command_names_a_config_that_reads_priors(tmp_path, steps, words):
    config = Config(dict(train_dataloader=dict(dataset=dict(pipeline=steps))))
    (tmp_path / 'own.py').touch()
    stage = Stage('last', tmp_path, config=config)
    command = gallery_module._command(Run(tmp_path, [stage]), stage, [tmp_path / 'a store'], 'my data')
    assert command == (
        f"python tools/train.py {words} --priors '{tmp_path}/a store' --work-dir {tmp_path}_repainted --data 'my data'"
    )


def test_the_command_trains_what_priors_teach_on_the_images_of_the_run(tmp_path):
    dataset = dict(data_root='parts', pipeline=[dict(type='kgl_mm.LoadPrior')])
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    run = Run(tmp_path, [Stage(name, tmp_path, config=config) for name in ('stage1', 'stage2_unguided', 'stage2')])
    run.stages[0].config = None
    reader = gallery_module._reader(run)
    assert reader.name == 'stage2'
    one, two = (gallery_module._command(run, reader, [tmp_path] * n, None) for n in (1, 2))
    assert one == f'python tools/train.py CONFIG --priors {tmp_path} --work-dir {tmp_path}_repainted --data parts'
    assert two == f'python tools/train.py CONFIG --stage stage2 --work-dir {tmp_path} --data parts'


def test_masks_play_the_human_in_a_copy(masked, store, tmp_path):
    copy = masked.copy_to(tmp_path / 'copy')
    assert paint_masks(copy, 2) == ['bad/d1.png', 'bad/d2.png']
    found = PriorStore(tmp_path / 'copy')
    assert found.verify().edited == ['evidence/bad/d1.png', 'evidence/bad/d2.png']
    np.testing.assert_array_equal(found.read('bad/d1.png'), stroke())
    assert store.verify() == (5, [], [], [])
    with pytest.raises(UsageError, match='is there already'):
        masked.copy_to(tmp_path / 'copy')


def test_at_random_the_first_are_among_more(masked, tmp_path):
    chosen = [
        paint_masks(masked.copy_to(tmp_path / f'{n}-{s}'), n, 'random', s) for s in range(5) for n in (0, 1, 2, 3)
    ]
    for start in range(0, 20, 4):
        for fewer, more in zip(chosen[start:], chosen[start + 1 : start + 4], strict=False):
            assert fewer == more[: len(fewer)]
        assert sorted(chosen[start + 3]) == ['bad/d0.png', 'bad/d1.png', 'bad/d2.png']
    assert len({tuple(keys) for keys in chosen[3::4]}) > 1
    for wrong in (dict(number=4), dict(number=-1), dict(number=1, order='other')):
        with pytest.raises(UsageError):
            paint_masks(masked, **wrong)


def test_a_moved_store_without_its_run_still_paints(store, tmp_path):
    shutil.copytree(store.root, tmp_path / 'moved')
    gallery = open_gallery(tmp_path / 'moved', tmp_path / 'images')
    gallery.save(0, as_png(stroke()))
    line = json.loads((tmp_path / 'moved/journal').glob('*').__next__().read_text().strip())
    assert line['edited'] is True


def test_what_is_lighter_than_half_is_inside(gallery, store):
    gallery.save(0, cv2.imencode('.png', np.repeat(np.uint8([[0, 127, 128, 255]]), 40, 0).repeat(15, 1))[1].tobytes())
    assert store.read('bad/d1.png', size=(40, 60))[0, 5::15].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize('side', [100_000, 9000])
def test_a_mask_that_says_it_is_huge_is_refused(gallery, side):
    with pytest.raises(UsageError, match='million can be saved'):
        gallery.save(0, bomb(side, side))


def test_where_no_trust_is_known_the_faintest_maps_come_first(tmp_path):
    store = PriorStore(tmp_path / 'store')
    for name, peak in (('a', 0.9), ('b', 0.2), ('c', 0.5)):
        (tmp_path / f'images/{name}.png').parent.mkdir(exist_ok=True)
        (tmp_path / f'images/{name}.png').write_bytes(picture())
        store.write(f'{name}.png', np.full((40, 60), peak), label=1)
    assert [place.key for place in open_gallery(store.root, tmp_path / 'images').places] == ['b.png', 'c.png', 'a.png']
