import logging
import os
import random
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, pseudo_collate
from mmengine.registry import DATASETS, TRANSFORMS
from mmpretrain.registry import MODELS

from kgl_mm.errors import UsageError
from kgl_mm.files import hash_of
from kgl_mm.priors import PriorStore, binarize, generation
from kgl_mm.priors.generation import as_tested, generate, keys_of
from kgl_mm.priors.quality import quality
from kgl_mm.saliency import FullGrad, GradCAM, LayerCAM, SaliencyProduct
from kgl_mm.visualization import SHEET


def files(store):
    """All maps of a store, byte for byte."""
    root = Path(store.root)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.glob('evidence/**/*.png'))}


@pytest.fixture
def passes(monkeypatch):
    """How many batches were looked at."""
    seen = []
    explain = LayerCAM.explain
    monkeypatch.setattr(LayerCAM, 'explain', lambda *args, **kwargs: seen.append(1) or explain(*args, **kwargs))
    return seen


@pytest.fixture
def log(monkeypatch):
    """What was said."""
    lines = []
    monkeypatch.setattr('kgl_mm.priors.generation.print_log', lambda text, **kwargs: lines.append(text))
    return lines


def test_maps_and_what_is_told_of_them(run, model, surfaces, log):
    store = run(fraction=1.0)
    assert len(store) == len(surfaces) == 11
    method = LayerCAM(model, normalize='evidence')
    for index, key in enumerate(
        keys_of([surfaces.get_data_info(i)['img_path'] for i in range(11)], surfaces.data_root)
    ):
        data = model.data_preprocessor(pseudo_collate([surfaces[index]]))
        found = method.explain(data['inputs'])
        expected = found.maps[0].numpy()
        entry = store.entry(key)
        np.testing.assert_allclose(store.read(key), expected, atol=1.01 * entry['scale'])
        assert entry['peak'] == pytest.approx(float(expected.max()), abs=1e-6)
        assert entry['evidence'] == pytest.approx(float(found.evidence[0]), abs=1e-5)
        flipped = (
            method.explain(data['inputs'].flip(3)).views[0, 0].flip(1),
            method.explain(data['inputs'].flip(2)).views[0, 0].flip(0),
        )
        raw = found.views[0, 0].flatten()
        alike = [float(torch.corrcoef(torch.stack([raw, other.flatten()]))[0, 1]) for other in flipped]
        assert entry['trust'] == pytest.approx(np.mean(alike), abs=1e-3)
        info = surfaces.get_data_info(index)
        assert entry['image'] == hash_of(info['img_path'])
        assert entry['label'] == info['gt_label']
        if info['gt_label']:
            mask = cv2.imread(info['mask_path'], cv2.IMREAD_GRAYSCALE)
            for name, value in quality(expected, mask, binarize(expected)).items():
                assert entry['quality'][name] == pytest.approx(value, abs=1e-3)
        else:
            assert 'quality' not in entry
    assert any('11 maps' in line and 'on 4 with a mask' in line for line in log)
    sheet = cv2.imread(str(Path(store.root, SHEET)))
    assert sheet.shape[0] > 100
    assert str(store.verify()) == '11 as written'
    assert store.source()['method']['layers'] == ['backbone.stages.0', 'backbone.stages.1']


@pytest.mark.parametrize('method', [GradCAM, FullGrad, SaliencyProduct])
def test_an_interruption_changes_no_byte(run, model, method, monkeypatch):
    whole = files(run('whole', method(model)))
    write, written = PriorStore.write, []

    def fail(*args, **kwargs):
        if len(written) == 4:  # in the middle of the second batch
            raise KeyboardInterrupt
        written.append(write(*args, **kwargs))

    monkeypatch.setattr(PriorStore, 'write', fail)
    with pytest.raises(KeyboardInterrupt):
        run('torn', method(model))
    monkeypatch.setattr(PriorStore, 'write', write)
    torn = run('torn', method(model))
    assert files(torn) == whole
    assert str(torn.verify()) == '11 as written'


def test_what_is_there_is_not_made_again(run, passes, log):
    before = files(run())
    assert len(passes) == 5  # a first look, and the four batches
    assert files(run()) == before
    assert len(passes) == 5
    assert any('of 11 maps 11 are there already' in line for line in log)


def test_another_batch_size_stays_within_a_step(run):
    three, one = run('three'), run('one', batch_size=1)
    for key in three.keys():  # noqa: SIM118
        assert np.abs(three.read(key) - one.read(key)).max() <= three.entry(key)['scale'] * 1.01


def test_the_store_of_another_checkpoint_or_other_settings_is_refused(run, model):
    before = files(run())
    with pytest.raises(UsageError, match=r'stale: .*method\.fuse.*mean'):
        run(method=LayerCAM(model, normalize='evidence', fuse='mean'))
    with torch.no_grad():
        model.head.fc.bias += 1
    with pytest.raises(UsageError, match=r'stale: .*model was'):
        run()
    assert files(run('other')) != before
    assert files(PriorStore(Path(run('other').root).with_name('store'))) == before


def test_edited_changed_and_damaged_maps(run, passes, log, surfaces, drawn):
    store = run()
    keys = store.keys()
    edited, _, damaged, missing = (Path(store.root, 'evidence', f'{key}.png') for key in keys[:4])
    whole = files(store)
    painted = np.full((32, 64), 200, np.uint8)
    cv2.imwrite(str(edited), painted)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    missing.unlink()
    image = Path(drawn, keys[1])
    kept = image.read_bytes()
    try:
        cv2.imwrite(str(image), cv2.imread(str(image)) // 2)
        passes.clear()
        again = run()
        assert len(passes) == 2  # the batches of these four
        (line,) = [line for line in log if 'were edited' in line]
        assert '7 are there already; 1 were edited by hand and stay as they are; 1 belong to images' in line
        assert again.is_edited(keys[0])
        assert again.read(keys[0]).max() == pytest.approx(200 / 255)
        assert again.entry(keys[1])['image'] == hash_of(image)
        now = files(again)
        assert now[f'evidence/{keys[1]}.png'] != whole[f'evidence/{keys[1]}.png']
        assert all(now[f'evidence/{key}.png'] == whole[f'evidence/{key}.png'] for key in keys[2:])
        assert again.verify().edited == [f'evidence/{keys[0]}']
        assert not again.verify().damaged
    finally:
        image.write_bytes(kept)


def test_threads_and_model_are_as_before(run, model):
    model.train()
    before, threads = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_num_threads()
    run(threads=2)
    assert torch.get_num_threads() == threads
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_number_of_threads_elsewhere_changes_no_byte(run, surfaces):
    """DenseNet's maps depend on it in their last bits, and so in the bytes, unless it is fixed."""
    torch.manual_seed(0)
    backbone = dict(type='mmpretrain.DenseNet', arch='121')
    head = dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=1024, topk=(1,))
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = files(run('one', FullGrad(model), dataset=surfaces.get_subset([0, 1]), flips=()))
        torch.set_num_threads(2)
        two = files(run('two', FullGrad(model), dataset=surfaces.get_subset([0, 1]), flips=()))
    finally:
        torch.set_num_threads(before)
    assert one == two


def test_workers_change_nothing(run):
    assert files(run('workers', num_workers=2)) == files(run('none'))


def test_no_trust_without_flips(run):
    assert 'trust' not in run(flips=()).entry(run(flips=()).keys()[0])


def test_a_map_that_is_not_finite_is_refused(run, model):
    with torch.no_grad():
        model.head.fc.weight.fill_(float('nan'))
    with pytest.raises(UsageError, match='not finite'):
        run()


def test_class_0_that_is_not_good_is_warned_of_and_not_called_good(run, surfaces, log, monkeypatch):
    captions = []
    draw = generation.draw_contact_sheet
    monkeypatch.setattr(
        generation,
        'draw_contact_sheet',
        lambda rows: captions.extend(tile['caption'] for row in rows.values() for tile in row) or draw(rows),
    )
    surfaces._metainfo['classes'] = ('ng', 'ok')
    store = run()
    assert any("class 0, 'ng'" in line for line in log)
    assert captions
    assert all(caption.startswith('defect ') for caption in captions)
    measured = [key for key in store.keys() if 'quality' in store.entry(key)]  # noqa: SIM118
    assert len(measured) == 4  # a mask that is empty says nothing of a map
    assert len(store) == 11


def test_images_of_several_sizes(run, tmp_path):
    folder = tmp_path / 'parts'
    for kind, sizes in dict(good=((20, 30), (40, 24)), dent=((33, 21), (25, 50))).items():
        (folder / kind).mkdir(parents=True)
        for number, size in enumerate(sizes):
            cv2.imwrite(str(folder / kind / f'{number}.png'), np.full(size, 90, np.uint8))
    dataset = DATASETS.build(
        dict(
            type='kgl_mm.DefectFolder',
            data_root=str(folder),
            pipeline=[
                dict(type='mmpretrain.LoadImageFromFile'),
                dict(type='mmpretrain.Resize', scale=(32, 32)),
                dict(type='kgl_mm.PackDefect'),
            ],
            split_file=str(tmp_path / 'split.csv'),
        )
    )
    store = run(dataset=dataset)
    for index in range(len(dataset)):
        path = dataset.get_data_info(index)['img_path']
        key = keys_of([path], str(folder))[0]
        assert store.read(key).shape == cv2.imread(path).shape[:2]


def spot(kind, size, at, folder, name):
    image = np.full(size, 90, np.uint8)
    cv2.circle(image, at[::-1], 4, 250, -1)
    (folder / kind).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / kind / f'{name}.png'), image)


@pytest.fixture
def spots(tmp_path):
    """A function that makes a data set of bright spots at one place in images of two sizes."""

    def make(pipeline):
        folder = tmp_path / 'spots'
        for number, size in enumerate(((60, 60), (120, 60)) * 3):
            for kind in ('good', 'dent'):
                spot(kind, size, (40, 20), folder, str(number))
        load, pack = dict(type='mmpretrain.LoadImageFromFile'), dict(type='kgl_mm.PackDefect')
        cfg = dict(type='kgl_mm.DefectFolder', data_root=str(folder), split_file=str(tmp_path / 'split.csv'))
        steps = [TRANSFORMS.build(step) for step in (load, *pipeline, pack)]
        return as_tested(DATASETS.build(dict(cfg, pipeline=[])), steps)

    return make


class Brightness(torch.nn.Module):
    """Its evidence is the brightness, so the map of an image is the image."""

    def __init__(self, data_preprocessor):
        super().__init__()
        self.data_preprocessor = MODELS.build(data_preprocessor)
        self.gray, self.head = torch.nn.Conv2d(3, 1, 1), torch.nn.Linear(1, 2)
        with torch.no_grad():
            self.gray.weight.fill_(1)
            self.gray.bias.zero_()
            self.head.weight.copy_(torch.tensor([[0.0], [1.0]]))

    def forward(self, images):
        return self.head(self.gray(images).relu().mean((2, 3)))


PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3)


@pytest.mark.parametrize('preprocessor', [PREPROCESSOR, dict(PREPROCESSOR, pad_size_divisor=32)])
@pytest.mark.parametrize('resize', [[], [dict(type='mmpretrain.Resize', scale=(90, 120))]])
def test_the_map_lies_where_its_image_does(run, spots, preprocessor, resize):
    method = GradCAM(Brightness(preprocessor), layers=['gray'])
    store = run(method=method, dataset=spots(resize), batch_size=1, fraction=1.0)
    assert len(store) > 4
    for key in store.keys():  # noqa: SIM118
        prior = store.read(key)
        row, column = (int(np.median(axis)) for axis in np.nonzero(prior > 0.9 * prior.max()))
        assert abs(row - 40) <= 1
        assert abs(column - 20) <= 1


def test_images_of_two_sizes_in_a_batch_are_refused(run, spots):
    with pytest.raises(UsageError, match='differ in size'):
        run(method=GradCAM(Brightness(PREPROCESSOR), layers=['gray']), dataset=spots([]), batch_size=12)


@pytest.mark.parametrize('kind', ['CenterCrop', 'RandomFlip', 'mmpretrain.RandomResizedCrop'])
def test_a_pipeline_that_crops_or_draws_is_refused(surfaces, kind):
    with pytest.raises(UsageError, match=f'{kind}: the maps would not show the whole image'):
        as_tested(surfaces, [dict(type='LoadImageFromFile'), dict(type=kind)])


def test_another_preprocessor_or_structure_is_another_source(run, model):
    run()
    kept = model.data_preprocessor
    model.data_preprocessor = MODELS.build(dict(PREPROCESSOR, mean=[0.0] * 3, std=[50.0] * 3, to_rgb=True))
    with pytest.raises(UsageError, match='stale: model was'):
        run()
    model.data_preprocessor = kept
    run()  # the same again
    model.backbone.stages[0][0].activate.negative_slope = 0.3
    with pytest.raises(UsageError, match='stale: model was'):
        run()


def test_the_same_keys_of_another_folder_are_refused(run, surfaces, tmp_path):
    run()
    shutil.copytree(surfaces.data_root, tmp_path / 'elsewhere')
    cfg = dict(type='kgl_mm.SyntheticSurface', num_train=(7, 4), num_test=(2, 2), size=(64, 64))
    other = DATASETS.build(dict(cfg, data_root=str(tmp_path / 'elsewhere')))
    with pytest.raises(UsageError, match=r'stale: data\.folder was drawn, is elsewhere'):
        run(dataset=as_tested(other, surfaces.pipeline.transforms))


def test_maps_whose_source_is_forgotten_are_made_anew(run, model, log):
    before = files(run())
    (Path(run().root) / 'store.json').unlink()
    store = run(method=GradCAM(model, normalize='evidence'))
    assert any('11 were made by something else' in line for line in log)
    assert files(store) != before
    assert files(store) == files(run('fresh', GradCAM(model, normalize='evidence')))


def test_a_failed_attempt_leaves_no_store_behind(run, model, tmp_path):
    with pytest.raises(UsageError, match='is no map'):
        run(method=GradCAM(model, layers=['head.fc']))
    assert not (tmp_path / 'store').exists()
    run()


@pytest.mark.parametrize('wrong', [dict(batch_size=0), dict(threads=0)])
def test_numbers_below_one_are_refused(run, wrong):
    with pytest.raises(UsageError, match='not a whole number of 1 or more'):
        run(**wrong)


def test_a_data_set_without_images_is_refused(run, surfaces):
    with pytest.raises(UsageError, match='it has none'):
        run(dataset=surfaces.get_subset([]))


def test_trust_is_that_of_the_flips_asked_for(run, model):
    averaged = LayerCAM(model, flips=['h', 'v', 'hv'])
    plain, over = run('plain', LayerCAM(model), flips=('v',)), run('over', averaged, flips=('v',))
    for key in plain.keys():  # noqa: SIM118
        assert over.entry(key)['trust'] == pytest.approx(plain.entry(key)['trust'], abs=1e-3)
    assert 'trust' not in run('none', averaged, flips=()).entry(plain.keys()[0])


def test_keys():
    assert keys_of(['d/a/1.png', 'd/2.png'], 'd') == ['a/1.png', '2.png']
    assert keys_of(['d/a/1.png', 'd/b/1.png'], None) == ['a/1.png', 'b/1.png']
    assert keys_of(['d/a/1.png', 'e/1.png'], 'd') == ['d/a/1.png', 'e/1.png']
    assert keys_of(['d/../d/a/1.png'], './d') == ['a/1.png']


def test_as_tested_sees_no_augmentation(surfaces):
    surfaces.pipeline.transforms.insert(2, lambda results: results | dict(img=results['img'] * 0))
    dataset = as_tested(surfaces, surfaces.pipeline.transforms[:2] + surfaces.pipeline.transforms[3:])
    assert dataset[0]['inputs'].amax() > 0
    assert surfaces[0]['inputs'].amax() == 0


def test_several_data_sets_in_one_are_refused(surfaces):
    with pytest.raises(UsageError, match='one data set at a time'):
        as_tested(ConcatDataset([surfaces, surfaces]), [])


def _in_child(function):
    """Run a function in a fork of this process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        logging.disable(logging.CRITICAL)
        function()
        os._exit(0)
    finally:
        os._exit(1)


def _end_of(pid):
    """The status of a child."""
    end = time.monotonic() + 120
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError('a child did not end')
        time.sleep(0.01)
    return found[1]


def test_a_process_that_looks_late_shares_the_work_as_the_other_does(run, model, surfaces, tmp_path, monkeypatch):
    whole = run('whole', batch_size=1)

    def work(rank):
        torch.distributed.init_process_group('gloo', f'file://{tmp_path}/meeting', rank=rank, world_size=2)
        if rank:
            state = generation._state
            monkeypatch.setattr(generation, '_state', lambda *place: time.sleep(0.05) or state(*place))
        generate(LayerCAM(model, normalize='evidence'), surfaces, PriorStore(tmp_path / 'two'), batch_size=1)

    children = [_in_child(lambda rank=rank: work(rank)) for rank in range(2)]
    assert [_end_of(child) for child in children] == [0, 0]
    assert files(PriorStore(tmp_path / 'two')) == files(whole)


@pytest.mark.parametrize(
    ('processes', 'kills'),
    [(1, 5), (2, 4), pytest.param(1, 50, marks=pytest.mark.slow), pytest.param(2, 50, marks=pytest.mark.slow)],
)
def test_killed_at_random_moments(run, model, surfaces, tmp_path, processes, kills):
    """Killed with SIGKILL again and again, then run to the end: the bytes of a run that was left alone."""
    start = time.monotonic()
    whole = run('whole', batch_size=1)
    lasts = time.monotonic() - start
    rng = random.Random(processes)

    def work(rank, attempt):
        if processes > 1:
            meeting = f'file://{tmp_path}/meeting{attempt}'
            torch.distributed.init_process_group('gloo', init_method=meeting, rank=rank, world_size=processes)
        store = PriorStore(tmp_path / 'killed')
        generate(LayerCAM(model, normalize='evidence'), surfaces, store, batch_size=1)

    for attempt in range(kills):
        children = [_in_child(lambda rank=rank, attempt=attempt: work(rank, attempt)) for rank in range(processes)]
        time.sleep(rng.uniform(0, 1.5 * lasts))
        for child in rng.sample(children, processes):
            os.kill(child, signal.SIGKILL)
        for child in children:
            _end_of(child)
        if (tmp_path / 'killed/store.json').exists():
            report = PriorStore(tmp_path / 'killed').verify()
            assert not any(report[1:]), report
    children = [_in_child(lambda rank=rank: work(rank, 'last')) for rank in range(processes)]
    assert [_end_of(child) for child in children] == [0] * processes
    killed = PriorStore(tmp_path / 'killed')
    assert files(killed) == files(whole)
    assert str(killed.verify()) == '11 as written'
    assert killed.keys() == whole.keys()
    lines = [(Path(store.root) / 'manifest.jsonl').read_text().splitlines() for store in (killed, whole)]
    assert [line.split('"stamp"')[0] for line in lines[0]] == [line.split('"stamp"')[0] for line in lines[1]]
    assert not list(Path(killed.root).rglob('.*.tmp'))
    assert not list(Path(killed.root, 'journal').iterdir())


def test_a_mask_over_an_image_that_has_changed_is_told(run, surfaces, log):
    store = run()
    info = surfaces.get_data_info(0)
    key = keys_of([info['img_path']], surfaces.data_root)[0]
    store.paint(key, np.ones((4, 4)))
    kept = Path(info['img_path']).read_bytes()
    try:
        cv2.imwrite(info['img_path'], cv2.imread(info['img_path']) // 2)
        run()
        assert any('1 were painted over images that have changed since' in line for line in log)
    finally:
        Path(info['img_path']).write_bytes(kept)


def test_a_folder_whose_name_begins_as_that_of_the_data_is_another_one():
    assert keys_of(['data2/a/1.png', 'data2/b/1.png'], 'data') == ['a/1.png', 'b/1.png']
