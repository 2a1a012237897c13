"""Each source behind the one interface: what it gives, what it refuses, and that its store is the same every time."""

import copy
import io
import os

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from kgl_mm.errors import UsageError
from kgl_mm.priors import PriorSource, PriorStore
from kgl_mm.priors.fingerprint import hash_of_model
from kgl_mm.priors.generation import as_tested, generate
from kgl_mm.priors.sources import (
    FolderSource,
    PatchMemorySource,
    SaliencySource,
    TeacherStudentSource,
    calibrate,
    standardize,
)
from kgl_mm.priors.sources.base import good_indices, loaded
from kgl_mm.registry import PRIOR_SOURCES
from kgl_mm.saliency import LayerCAM

BACKBONE = dict(type='kgl_mm.SlimVGG', channels=(8, 8), convs=(1, 1), out_indices=(0, 1))
LOAD = dict(type='mmpretrain.LoadImageFromFile')
PACK = dict(type='kgl_mm.PackDefect')


@pytest.fixture
def write(surfaces, tmp_path):
    """A function that writes the maps of a source into a folder of this name: the bytes of all maps by key."""

    def write(source, name='store', dataset=surfaces, **kwargs):
        generate(source, dataset, PriorStore(tmp_path / name), **dict(dict(batch_size=3), **kwargs))
        store = PriorStore(tmp_path / name)
        return store, {key: (tmp_path / name / 'evidence' / f'{key}.png').read_bytes() for key in store.keys()}  # noqa: SIM118

    return write


@pytest.fixture
def detector():
    torch.manual_seed(0)
    preprocessor = dict(mean=[127.5] * 3, std=[50.0] * 3, to_rgb=True)
    settings = dict(teacher=BACKBONE, ssp=dict(attention='simam'), data_preprocessor=preprocessor)
    return MODELS.build(dict(type='kgl_mm.TeacherStudentDetector', **settings))


@pytest.fixture
def parts(tmp_path):
    """A function that writes a folder of images of these sizes and gives the data set; one in three is defective."""

    def parts(*sizes, pipeline=(), good=None):
        folder = tmp_path / 'parts'
        for number, size in enumerate(sizes):
            kind = 'dent' if number >= (len(sizes) if good is None else good) else 'good'
            (folder / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(80, 120, (*size, 3), np.uint8)
            if kind == 'dent':
                cv2.circle(pixels, (size[1] // 2, size[0] // 2), 5, (250, 250, 250), -1)
            cv2.imwrite(str(folder / kind / f'{number}.png'), pixels)
        (tmp_path / 'split.csv').write_text(
            'path,split\n' + ''.join(f'{path.relative_to(folder)},train\n' for path in sorted(folder.rglob('*.png')))
        )
        settings = dict(data_root=str(folder), split_file=str(tmp_path / 'split.csv'), num_positives=0)
        dataset = DATASETS.build(dict(type='kgl_mm.DefectFolder', pipeline=[], **settings))
        return as_tested(dataset, [LOAD, *pipeline, PACK]).with_defects()

    return parts


def test_the_saliency_of_a_classifier_is_a_source_as_any(write, model):
    method = dict(type='kgl_mm.LayerCAM', normalize='evidence')
    source = PRIOR_SOURCES.build(dict(type='kgl_mm.SaliencySource', method=method, model=model))
    assert isinstance(source, PriorSource)
    assert write(source, 'a')[1] == write(LayerCAM(model, normalize='evidence'), 'b')[1]
    assert write(SaliencySource(LayerCAM(model, normalize='evidence')), 'a')[1]  # the same source, so nothing is stale


def test_a_source_of_ones_own_says_nothing_but_its_maps(write, surfaces):
    class Darkness(PriorSource):
        def maps(self, images, samples=()):
            return 1 - images.float().mean(1) / 255

    store, _ = write(Darkness())
    entry = store.entry(store.keys()[0])
    image = cv2.imread(surfaces.get_data_info(0)['img_path'])
    assert entry['evidence'] == pytest.approx(1 - image.mean(2).min() / 255, abs=1e-6)
    assert entry['trust'] == pytest.approx(1, abs=1e-4)  # a flipped image is as dark
    assert store.source()['method'] == dict(type='Darkness')
    assert store.source()['model'] is None


@pytest.mark.parametrize(
    ('give', 'sentence'),
    [
        (
            lambda images: images[:, 0].repeat_interleave(2, 1),
            r'Odd.maps: gave \(1, 128, 64\), where .* maps \(1, 64, 64\)',
        ),
        (lambda images: images[:0, 0], r'gave \(0, 64, 64\)'),
        (lambda images: images[:, 0].numpy(), 'gave ndarray'),
        (lambda images: None, 'gave NoneType'),
    ],
)
def test_maps_of_another_size_are_refused(write, tmp_path, give, sentence):
    class Odd(PriorSource):
        def maps(self, images, samples=()):
            return give(images.float())

    with pytest.raises(UsageError, match=sentence):
        write(Odd())
    assert not (tmp_path / 'store').exists()


def test_maps_may_come_with_a_gradient(write):
    weight = torch.ones((), requires_grad=True)

    class Learned(PriorSource):
        def maps(self, images, samples=()):
            return weight * images.float().mean(1)

    assert len(write(Learned())[1]) > 3


@pytest.mark.parametrize('source', [TeacherStudentSource, PatchMemorySource])
@pytest.mark.parametrize('small', [1, 2])
def test_an_image_too_small_for_the_network_is_named(write, parts, request, tmp_path, source, small):
    model, dataset = request.getfixturevalue('detector'), parts((1, 5), (32, 40), good=small)
    with pytest.raises(UsageError, match=r'0.png: the network cannot take images of 5 x 1 pixels'):
        write(source(model), 'store', dataset, batch_size=1)
    assert not (tmp_path / 'store').exists()


def test_so_it_is_where_windows_do_not_fit(write, parts):
    swin = dict(type='SwinTransformer', arch='tiny', img_size=64, out_indices=(0, 1))
    with pytest.raises(UsageError, match=r'0.png: the network cannot take images of 40 x 32 pixels .*window size'):
        write(PatchMemorySource(network=swin), 'store', parts((32, 40), (32, 40), good=1))


def test_a_detector_is_calibrated_once(write, detector, surfaces):
    store, first = write(TeacherStudentSource(detector), 'a')
    assert detector.head.is_calibrated
    assert write(TeacherStudentSource(detector), 'b', fit_on=surfaces.get_subset([0, 1]))[1] == first
    peaks = [store.entry(key)['peak'] for key in store.keys() if not store.entry(key)['label']]  # noqa: SIM118
    assert np.mean(np.array(peaks) > 0.5) < 0.2
    assert max(peaks) == pytest.approx(0.5, abs=0.1)


def test_a_calibration_of_any_size(detector, surfaces):
    """A teacher whose features are far apart has distances beyond what [0, 1) can tell in float32."""
    calibrate(detector, surfaces)
    before = float(detector.head.map_scale), float(detector.head.score_scale)
    detector.head.unit = False
    for scale in detector.scales:
        scale.deviation.fill_(1e-6)
    calibrate(detector, surfaces)
    after = float(detector.head.map_scale), float(detector.head.score_scale)
    assert min(after) > 1e15 * max(before)
    assert after[0] == pytest.approx(after[1], rel=0.2)  # the maximum of a map, before and after it is resized


@pytest.mark.parametrize('change', [dict(combine='sum'), dict(maps='mkd'), dict(unit=False), dict(top=0.1)])
def test_what_shapes_the_maps_of_a_detector_is_in_its_manifest(write, detector, change):
    write(TeacherStudentSource(detector))
    settings = TeacherStudentSource(detector).settings()
    for name, value in change.items():
        setattr(detector.head, name, value)
    assert TeacherStudentSource(detector).settings() != settings
    with pytest.raises(UsageError, match='stale: '):
        write(TeacherStudentSource(detector))


def test_the_hash_of_a_detector_knows_how_it_looks(detector):
    first = hash_of_model(detector)
    detector.standardize = False
    second = hash_of_model(detector)
    detector.blocks[0].fuse = 'replace'
    assert len({first, second, hash_of_model(detector)}) == 3


def test_the_channels_of_a_teacher_by_its_good_images(detector, surfaces):
    standardize(detector, surfaces, batch_size=3)
    good = [surfaces[index]['inputs'] for index in good_indices(surfaces)]
    images = detector.data_preprocessor(dict(inputs=good, data_samples=None))['inputs']
    with torch.no_grad():
        for scale, feature in zip(detector.scales, detector.teacher(images), strict=True):
            torch.testing.assert_close(scale.mean, feature.double().mean((0, 2, 3)).float().view_as(scale.mean))
            spread = feature.double().var((0, 2, 3), correction=0).sqrt().float()
            torch.testing.assert_close(scale.deviation, spread.view_as(scale.mean), rtol=1e-4, atol=1e-6)


def test_a_teacher_that_is_broken_is_said(detector, surfaces):
    with torch.no_grad():
        next(detector.teacher.parameters()).fill_(torch.inf)
    with pytest.raises(UsageError, match='what the teacher puts out is not finite'):
        standardize(detector, surfaces)


def test_a_detector_that_nobody_calibrated_and_images_of_many_sizes(write, detector, parts):
    dataset = parts((32, 40), (48, 24), (33, 35), (40, 64), (20, 80), good=4)
    store, _ = write(TeacherStudentSource(detector), 'a', dataset, batch_size=1)
    assert len(store.keys()) == 5
    assert detector.head.is_calibrated


def test_calibration_needs_a_good_image(detector, surfaces):
    defective = [i for i in range(len(surfaces)) if i not in good_indices(surfaces)]
    for scale in (calibrate, standardize):
        with pytest.raises(UsageError, match='has no good image'):
            scale(detector, surfaces.get_subset(defective))
    calibrate(detector, surfaces.get_subset(good_indices(surfaces)[:1]))
    score, peak = detector.head.score_scale, detector.head.map_scale
    assert score.item() == pytest.approx(peak.item(), rel=0.1)


def test_patch_memory_by_its_formula(model, surfaces):
    """Some patches of an image, compared with remembered ones in a plain loop."""
    source = PatchMemorySource(model, layers=['backbone.stages.0'], k=2)
    source.fit(surfaces)
    good = good_indices(surfaces)

    def features(index):
        data = dict(inputs=[surfaces[index]['inputs']], data_samples=[surfaces[index]['data_samples']])
        images = model.data_preprocessor(data)['inputs']
        with torch.no_grad():
            return images, model.eval().backbone.stages[0](images)[0]

    known = torch.cat([features(index)[1].flatten(1).T for index in (good[0], good[-1])])
    torch.testing.assert_close(source.memory[0], known / known.norm(dim=1, keepdim=True))
    images, seen = features(1)
    found = source.distance(images)
    assert found.shape == (1, 64, 64)
    for y, x in [(3, 50), (33, 7)]:
        closest = max(torch.cosine_similarity(seen[:, y, x], patch, dim=0) for patch in known)
        assert found[0, y, x].item() == pytest.approx(1 - closest.item(), abs=1e-5)
    torch.testing.assert_close(source.maps(images), found / (found + source.scale))
    remembered, mine = features(good[0])
    assert source.distance(remembered).max() < 1e-5
    samples = [surfaces[index]['data_samples'] for index in (1, good[0])]
    both = source.maps(torch.cat([images, remembered]), samples)
    torch.testing.assert_close(both[:1], source.maps(images))
    other = features(good[-1])[1].flatten(1).T  # its own patches do not count
    closest = max(torch.cosine_similarity(mine[:, 3, 50], patch, dim=0) for patch in other)
    away = 1 - closest.item()
    assert both[1, 3, 50].item() == pytest.approx(away / (away + source.scale), abs=1e-5)


@pytest.mark.parametrize('good', [1, 2, 5])
def test_patch_memory_of_a_few_good_images(write, model, parts, good):
    dataset = parts(*[(32, 40)] * (good + 3), good=good)
    source = PatchMemorySource(model, k=3, depth=2)
    store, first = write(source, 'a', dataset)
    again = PatchMemorySource(model, k=3, depth=2)
    assert write(again, 'b', dataset)[1] == first
    assert len(source.memory) == 2
    peaks = {label: [] for label in (0, 1)}
    for key in store.keys():  # noqa: SIM118
        peaks[store.entry(key)['label']].append(store.entry(key)['peak'])
    assert min(peaks[1]) > max(peaks[0])
    row, column = np.unravel_index(store.read(f'dent/{good + 1}.png').argmax(), (32, 40))
    assert abs(row - 16) <= 7
    assert abs(column - 20) <= 7
    with pytest.raises(UsageError, match=r'stale: method\.k was 3, is 1'):
        write(PatchMemorySource(model, k=1, depth=2), 'a', dataset)


def test_patch_memory_with_a_network_of_its_own_and_images_of_many_sizes(write, parts):
    dataset = parts((32, 40), (48, 24), (33, 35), (40, 64), (20, 80), good=4)
    source = lambda **kwargs: PatchMemorySource(network=dict(BACKBONE), layers=['stages.0', 'stages.1'], k=4, **kwargs)  # noqa: E731
    before = torch.get_rng_state()
    source()
    assert torch.equal(torch.get_rng_state(), before)
    _, first = write(source(), 'a', dataset, batch_size=1)
    torch.manual_seed(5)
    assert write(source(), 'b', dataset, batch_size=1)[1] == first  # the weights are those of its own seed
    assert write(source(seed=1), 'c', dataset, batch_size=1)[1] != first
    assert not PatchMemorySource.needs_model(dict(network=BACKBONE))


def test_a_network_whose_weights_do_not_fit_is_refused(tmp_path):
    wider = MODELS.build(dict(BACKBONE, channels=(8, 16)))
    torch.save(dict(state_dict=wider.state_dict()), tmp_path / 'wider.pth')
    for name, sentence in [('wider', 'of another network'), ('absent', 'absent.pth cannot be loaded')]:
        init = dict(type='Pretrained', checkpoint=str(tmp_path / f'{name}.pth'))
        with pytest.raises(UsageError, match=sentence):
            PatchMemorySource(network=dict(BACKBONE, init_cfg=init))


def test_a_single_remembered_image_of_several_is_compared_with_itself(model, surfaces):
    source = PatchMemorySource(model, layers=['backbone.stages.0'], k=1)
    source.fit(surfaces)
    sample = surfaces[good_indices(surfaces)[0]]
    images = model.data_preprocessor(dict(inputs=[sample['inputs']], data_samples=None))['inputs']
    assert source.maps(images, [sample['data_samples']]).max() < 1e-3


def test_what_is_wrong_with_a_patch_memory_is_said(model, surfaces):
    for settings, sentence in [
        (dict(k=0), 'k=0: not a whole number of 1 or more'),
        (dict(layers=['typo']), 'no such layer as typo'),
        (dict(quantile=2), 'quantile=2'),
    ]:
        with pytest.raises(UsageError, match=sentence):
            PatchMemorySource(model, **settings)
    with pytest.raises(UsageError, match="network='resnet18' is no config of one"):
        PatchMemorySource(network='resnet18')
    with pytest.raises(UsageError, match='give a model or the config of a network'):
        PatchMemorySource()
    with pytest.raises(UsageError, match='nothing is remembered yet'):
        PatchMemorySource(model, layers=['backbone.stages.1']).maps(torch.zeros(1, 3, 64, 64))
    defective = [i for i in range(len(surfaces)) if i not in good_indices(surfaces)]
    with pytest.raises(UsageError, match='has no good image'):
        PatchMemorySource(model).check(surfaces.get_subset(defective))


def elsewhere(tmp_path, dataset, suffix, dtype=np.float32, scale=1.0, ending=''):
    """Maps of all images, brighter where these are defective, as another program leaves them."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        inside = os.path.relpath(info['img_path'], dataset.data_root)
        path = tmp_path / 'maps' / (inside.rpartition('.')[0] + ending + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        map = np.random.default_rng(index).random((16, 20)).astype(np.float32) * (1 + info['gt_label'])
        map = map * scale if dtype == np.float32 else (map / 2 * np.iinfo(dtype).max).astype(dtype)
        np.save(path, map) if suffix == '.npy' else cv2.imwrite(str(path), map)
    return tmp_path / 'maps'


@pytest.mark.parametrize(
    ('suffix', 'dtype', 'ending'),
    [('.npy', np.float32, ''), ('.tiff', np.float32, '_map'), ('.png', np.uint8, ''), ('.png', np.uint16, '_map')],
)
def test_maps_from_elsewhere(write, parts, tmp_path, suffix, dtype, ending):
    dataset = parts((32, 40), (48, 24), (33, 35), (40, 64), (20, 80), good=3)
    folder = elsewhere(tmp_path, dataset, suffix, dtype, 30.0, ending)
    store, first = write(FolderSource(folder, ending=ending), 'a', dataset, batch_size=1)
    assert write(FolderSource(folder, ending=ending), 'b', dataset, batch_size=1)[1] == first
    entries = [store.entry(key) for key in store.keys()]  # noqa: SIM118
    assert [entry['size'] for entry in entries] == [[40, 64], [20, 80], [32, 40], [48, 24], [33, 35]]
    assert 'trust' not in entries[0]
    assert store.source()['trust'] == []
    peaks = np.array([entry['peak'] for entry in entries])
    assert (peaks[:2] > peaks[2:].max()).all()
    assert peaks[2:].max() == pytest.approx(0.5, abs=0.02)  # of floats by their quantile, of the others by chance
    changed = next(folder.rglob(f'*{suffix}'))
    changed.write_bytes(next(path for path in folder.rglob(f'*{suffix}') if path != changed).read_bytes())
    with pytest.raises(UsageError, match='stale: model was'):
        write(FolderSource(folder, ending=ending), 'a', dataset, batch_size=1)


def test_floats_as_they_are(write, parts, tmp_path):
    dataset = parts((32, 40), (32, 40), good=1)
    folder = elsewhere(tmp_path, dataset, '.npy', scale=0.5)
    store, _ = write(FolderSource(folder, quantile=None), 'a', dataset)
    expected = np.load(folder / 'good/0.npy').max()
    assert store.entry('good/0.png')['peak'] <= expected < store.entry('good/0.png')['peak'] + 0.1
    elsewhere(tmp_path, dataset, '.npy', scale=3.0)
    with pytest.raises(UsageError, match=r'goes up to .*; with quantile=None maps must lie in'):
        write(FolderSource(folder, quantile=None), 'b', dataset)


def test_real_masks_as_the_ceiling(write, surfaces):
    store, _ = write(FolderSource(masks=True), fraction=1.0)
    for key in store.keys():  # noqa: SIM118
        entry = store.entry(key)
        assert entry['peak'] == entry['label']
        if entry['label']:
            assert entry['quality']['iou'] == 1


def test_workers_that_load_images_have_no_threads_of_opencv(surfaces):
    """A fork lacks those of its parent, and may wait for ever for what one of them held."""
    dataset = copy.copy(surfaces)
    dataset.pipeline = lambda _: cv2.getNumThreads()
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        found = [list(loaded(dataset, [[0], [1]], num_workers)) for num_workers in (0, 1)]
    finally:
        cv2.setNumThreads(before)
    assert found == [[[2], [2]], [[1], [1]]]


def test_masks_that_changed_are_another_source(write, surfaces):
    write(FolderSource(masks=True))
    assert len(write(FolderSource(masks=True))[1]) == len(surfaces)
    masks = [surfaces.get_data_info(index)['mask_path'] for index in range(len(surfaces))]
    cv2.imwrite(next(filter(None, masks)), np.full((64, 64), 255, np.uint8))
    with pytest.raises(UsageError, match='stale: taken was'):
        write(FolderSource(masks=True))


def test_no_two_images_share_a_map(write, parts, tmp_path):
    dataset = parts((32, 40), (32, 40), good=1)
    (tmp_path / 'flat').mkdir()
    for name, value in (('0', 1), ('1', 2)):
        np.save(tmp_path / f'flat/{name}.npy', np.full((2, 2), value, np.float32))
    write(FolderSource(tmp_path / 'flat'), 'a', dataset)
    (tmp_path / 'parts/dent/1.png').rename(tmp_path / 'parts/dent/0.png')
    (tmp_path / 'split.csv').write_text('path,split\ngood/0.png,train\ndent/0.png,train\n')
    dataset = DATASETS.build(
        dict(type='kgl_mm.DefectFolder', data_root=str(tmp_path / 'parts'), split_file=str(tmp_path / 'split.csv'))
    )
    dataset = as_tested(dataset, [LOAD, PACK])
    for look in (lambda source: write(source, 'b', dataset), lambda source: source.check(dataset)):
        with pytest.raises(UsageError, match=r'good/0.png and .*dent/0.png would both get|dent/0.png and .*good/0.png'):
            look(FolderSource(tmp_path / 'flat'))


def test_a_thin_defect_survives_where_images_are_shrunk(tmp_path):
    crack = np.zeros((2000, 2000), np.uint8)
    crack[:, 999:1001] = 255
    cv2.imwrite(str(tmp_path / 'a.png'), crack)
    sample = DataSample(metainfo=dict(img_path='a.png'))
    found = FolderSource(tmp_path, quantile=None).maps(torch.zeros(1, 3, 224, 224), [sample])[0]
    assert (found.amax(1) > 0).all()


def test_maps_of_true_and_false_and_a_source_without_paths(tmp_path):
    np.save(tmp_path / 'a.npy', np.eye(4, dtype=bool))
    source = FolderSource(tmp_path, quantile=None)
    sample = DataSample(metainfo=dict(img_path='a.png'))
    assert torch.equal(source.maps(torch.zeros(1, 3, 4, 4), [sample])[0], torch.eye(4))
    with pytest.raises(UsageError, match='pass their data samples too'):
        source.maps(torch.zeros(1, 3, 4, 4))


def test_what_is_wrong_with_a_folder_is_said(write, parts, tmp_path):
    dataset = parts((32, 40), (32, 40), (32, 40), good=2)
    (tmp_path / 'empty').mkdir()
    for make, sentence in [
        (lambda: FolderSource(tmp_path / 'absent'), 'absent: no such folder'),
        (lambda: FolderSource(tmp_path / 'empty'), r'empty: holds no maps \(\*.png, '),
        (lambda: FolderSource(), 'give either a folder or masks=True'),
        (lambda: FolderSource(tmp_path, masks=True), 'give either a folder or masks=True'),
        (lambda: FolderSource(masks=True, missing='typo'), "missing='typo'"),
        (lambda: FolderSource(5), 'write ./5'),
    ]:
        with pytest.raises(UsageError, match=sentence):
            make()
    folder = elsewhere(tmp_path, dataset, '.npy')
    (folder / 'dent/2.npy').unlink()
    with pytest.raises(UsageError, match=r"none of its 2 maps is that of .*dent/2.png; add it, or set missing='empty'"):
        write(FolderSource(folder), 'a', dataset, batch_size=1)
    store, _ = write(FolderSource(folder, missing='empty'), 'b', dataset, batch_size=1)
    assert store.entry('dent/2.png')['peak'] == 0
    archive, huge = io.BytesIO(), io.BytesIO()
    np.savez(archive, np.ones((2, 2)))
    np.lib.format.write_array_header_1_0(huge, dict(descr='<f8', fortran_order=False, shape=(10**7, 10**7)))
    for content in (b'broken', b'', archive.getvalue(), huge.getvalue()):
        (folder / 'dent/2.npy').write_bytes(content)
        with pytest.raises(UsageError, match='cannot be read as a map'):
            write(FolderSource(folder), 'c', dataset, batch_size=1)
    np.save(folder / 'dent/2.npy', np.ones((2, 2), complex))
    with pytest.raises(UsageError, match='cannot be read as a map'):
        write(FolderSource(folder), 'c', dataset, batch_size=1)
    assert not (tmp_path / 'a').exists()
    assert not (tmp_path / 'c').exists()  # a map is read before the first one is written
    for wrong in (-np.ones((2, 2)), np.ones((0, 5)), np.ones((3, 8, 9)), np.ones(5), np.full((2, 2), np.nan)):
        np.save(folder / 'dent/2.npy', wrong)
        with pytest.raises(UsageError, match='must have two dimensions'):
            FolderSource(folder).check(dataset)
    for right in (np.ones((1, 5)), np.ones((1, 1)), np.ones((1, 8, 9)), np.ones((8, 9, 1)), np.ones((8, 9, 3))):
        np.save(folder / 'dent/2.npy', right)
        FolderSource(folder).check(dataset)
    for path in folder.rglob('*.npy'):
        np.save(path, np.ones((2, 2), np.float32))
    (folder / 'good/0.npy').unlink(), (folder / 'good/1.npy').unlink()
    with pytest.raises(UsageError, match='there is no good image to compare with'):
        write(FolderSource(folder, missing='empty'), 'd', dataset, batch_size=1)
    np.save(folder / 'dent/2.png.npy', np.ones((2, 2)))
    assert FolderSource(folder).find('any/where/dent/2.png').name == '2.png.npy'


def test_real_masks_that_are_missing(write, parts):
    dataset = parts((32, 40), (32, 40), good=1)
    with pytest.raises(UsageError, match=r"1.png: has no mask; add it, or set missing='empty'"):
        write(FolderSource(masks=True), 'a', dataset)
    assert write(FolderSource(masks=True, missing='empty'), 'b', dataset)[0].entry('dent/1.png')['peak'] == 0


@pytest.fixture
def fitted(model, surfaces):
    def fit(**kwargs):
        source = PatchMemorySource(model, layers=['backbone.stages.0'], **kwargs)
        source.fit(surfaces)
        return source

    return fit


def test_the_scale_is_a_quantile_of_so_many_good_images_and_part_of_what_is_remembered(fitted, surfaces):
    low, high = fitted(k=2, quantile=0.1), fitted(k=2, quantile=1.0)
    assert low.scale < high.scale
    assert low.weights() != high.weights()
    looked_at = []
    get = type(surfaces).__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(surfaces), '__getitem__', lambda self, i: looked_at.append(i) or get(self, i))
        fitted(k=1, compare=2)
    assert len(looked_at) == 1 + 1 + 2  # to prepare, to remember, to compare


def test_no_more_patches_are_remembered_than_asked_for(fitted):
    source = fitted(k=3, max_patches=100)
    assert [len(part) for part in source.memory] == [len(part) for part in source.owners] == [100]
    assert set(source.owners[0].tolist()) == {0, 1, 2}


def test_the_longest_end_of_a_path_counts(tmp_path):
    for place, value in (('1.npy', 0.25), ('a/1.npy', 0.5)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        np.save(tmp_path / place, np.full((2, 2), value, np.float32))
    sample = DataSample(metainfo=dict(img_path='/data/a/1.png'))
    assert FolderSource(tmp_path, quantile=None).maps(torch.zeros(1, 3, 2, 2), [sample]).max() == 0.5


def test_the_scale_comes_of_the_images_of_the_training(write, parts, tmp_path, monkeypatch):
    from kgl_mm.priors import PriorStore
    from kgl_mm.priors.generation import generate

    dataset = parts((32, 40), (32, 40), (32, 40), good=2)
    source, seen = FolderSource(elsewhere(tmp_path, dataset, '.npy')), []
    monkeypatch.setattr(FolderSource, 'fit', lambda self, data: seen.append(len(data)))
    source.scale = 1.0
    generate(source, dataset, PriorStore(tmp_path / 'store'), batch_size=1, fit_on=dataset.get_subset([0]))
    assert seen == [1]


def test_images_of_which_nobody_said_whether_they_are_defective_are_good(tmp_path):
    import cv2

    for kind in ('nut', 'pipe'):
        (tmp_path / kind).mkdir()
        for i in range(2):
            cv2.imwrite(str(tmp_path / f'{kind}/{i}.png'), np.full((8, 8, 3), 50 * i + len(kind), np.uint8))
    data = DATASETS.build(dict(type='kgl_mm.CategoryFolder', data_root=str(tmp_path), test_mode=True))
    assert good_indices(data) == [0, 1, 2, 3]
