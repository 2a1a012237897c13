import json

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope

from kgl_mm.datasets import box_dataset
from kgl_mm.datasets.transforms import PackBoxes
from kgl_mm.errors import UsageError
from kgl_mm.priors.sources.base import good_indices

XML = """<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"""
OBJECT = '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def write_voc(root, images, size=(30, 20)):
    """Gray images, each of its own shade, by the name of the file: (class, xmin, ymin, xmax, ymax) of each object."""
    for folder in ('IMAGES', 'ANNOTATIONS'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for shade, (name, objects) in enumerate(images.items()):
        cv2.imwrite(str(root / 'IMAGES' / f'{name}.png'), np.full(size[::-1], shade, np.uint8))
        text = XML.format(width=size[0], height=size[1], objects=''.join(OBJECT.format(*one) for one in objects))
        (root / 'ANNOTATIONS' / f'{name}.xml').write_text(text)
    return root


def voc(root, **kwargs):
    return DATASETS.build(dict(type='kgl_mm.VocBoxes', data_root=str(root), **kwargs))


def coco(**kwargs):
    return DATASETS.build(dict(type='kgl_mm.CocoBoxes', **kwargs))


def names(dataset):
    return [dataset.get_data_info(index)['img_path'].rpartition('/')[2][:-4] for index in range(len(dataset))]


@pytest.fixture
def two_kinds(tmp_path):
    """24 images of dents, 12 of scratches and 4 without boxes."""
    images = {f'd{i:02d}': [('dent', 1, 1, 9, 9), ('scratch', 2, 2, 8, 8), ('dent', 5, 5, 30, 20)] for i in range(24)}
    images |= {f's{i:02d}': [('scratch', 3, 4, 10, 11)] for i in range(12)}
    return write_voc(tmp_path / 'set', images | {f'n{i}': [] for i in range(4)})


def test_pixels_of_voc_count_from_1_with_both_ends_inside(tmp_path):
    dataset = voc(write_voc(tmp_path, {'a': [('dent', 1, 1, 30, 20), ('scratch', 4, 5, 6, 7)], 'b': []}))
    info = dataset.get_data_info(0)
    assert dataset.metainfo['classes'] == ('dent', 'scratch')
    assert info['gt_bboxes'].tolist() == [[0, 0, 30, 20], [3, 4, 6, 7]]
    assert info['gt_bboxes'].dtype == np.float32
    assert info['gt_bboxes_labels'].tolist() == [0, 1]
    assert dataset.get_data_info(1)['gt_bboxes'].shape == (0, 4)
    assert 'gt_label' not in info  # since one image has no class


def test_other_programs_count_from_0(tmp_path):
    info = voc(write_voc(tmp_path, {'a': [('dent', 0, 0, 31, 20)]})).get_data_info(0)
    assert info['gt_bboxes'].tolist() == [[0, 0, 30, 20]]
    assert info['gt_label'] == 0


def test_parts_are_cut_by_kind_and_stay_whatever_the_seed_of_the_choice(two_kinds):
    parts = {
        split: names(voc(two_kinds, split=split, test_fraction=0.25, val_fraction=0.25))
        for split in ('train', 'val', 'test')
    }
    assert sorted(name for part in parts.values() for name in part) == names(voc(two_kinds))
    kinds = {split: [sum(name[0] == kind for name in part) for kind in 'dsn'] for split, part in parts.items()}
    assert kinds == dict(train=[14, 7, 2], val=[4, 2, 1], test=[6, 3, 1])
    others = dict(test_fraction=0.25, val_fraction=0.25, seed=1)
    assert names(voc(two_kinds, split='test', **others)) == parts['test']
    assert names(voc(two_kinds, split='val', **others)) != parts['val']
    assert names(voc(two_kinds, split='test', test_fraction=0.25, split_seed=1)) != parts['test']


def test_few_images_are_chosen_in_turns_and_nested(two_kinds):
    six, nine = (names(voc(two_kinds, num_images=number, seed=3)) for number in (6, 9))
    assert [sum(name[0] == kind for name in six) for kind in 'dsn'] == [2, 2, 2]
    assert set(six) < set(nine)
    assert names(voc(two_kinds, num_images=6, seed=4)) != six
    assert six == names(voc(two_kinds, num_per_class=2, seed=3))
    assert len(voc(two_kinds, split='test', num_images=6, test_fraction=0.25)) == 10  # of training alone
    with pytest.raises(UsageError, match='num_images=41: the training part has 40 images'):
        voc(two_kinds, num_images=41)
    with pytest.raises(UsageError, match='num_per_class=5: the training part has 4 images of no class'):
        voc(two_kinds, num_per_class=5)
    with pytest.raises(UsageError, match='give one of them'):
        voc(two_kinds, num_per_class=1, num_images=1)


def test_lists_of_images_give_the_parts(two_kinds):
    lists = two_kinds / 'ImageSets/Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('d00\ns00\n')
    (lists / 'test.txt').write_text('d01\n')
    assert names(voc(two_kinds)) == ['d00', 's00']
    assert names(voc(two_kinds, split='test')) == ['d01']
    with pytest.raises(UsageError, match='has a test part of its own'):
        voc(two_kinds, test_fraction=0.2)
    (lists / 'test.txt').write_text('d01\nd99\n')
    with pytest.raises(UsageError, match=r'no image of 1 of its names \(d99\)'):
        voc(two_kinds)
    (lists / 'test.txt').write_bytes(b'\xef\xbb\xbfd01\r\nd02\r\n')
    assert names(voc(two_kinds, split='test')) == ['d01', 'd02']


def test_files_that_an_archive_adds_are_left_alone_and_no_image_is_lost(tmp_path):
    root = write_voc(tmp_path, {'a': [('dent', 4, 5, 9, 15)]})
    (root / 'ANNOTATIONS/._a.xml').write_bytes(b'junk')
    assert names(voc(root)) == ['a']
    (root / 'IMAGES/a.jpg').write_bytes((root / 'IMAGES/a.png').read_bytes())
    with pytest.raises(UsageError, match=r'a.jpg and .*a.png: two images of one name'):
        voc(root)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(classes=['dent']), r"b.xml: unknown class 'scratch', which is none of dent"),
        (dict(split='test'), r'there is no test part; set test_fraction=0.2'),
        (dict(split='best'), r"split='best': not one of train, val, test"),
        (dict(test_fraction=1), r'test_fraction=1: not a number from 0 to 0.99'),
        (dict(data_root='nowhere'), r'nowhere: no such folder; pass the folder that holds IMAGES/ and ANNOTATIONS/'),
    ],
)
def test_wrong_settings(tmp_path, change, said):
    write_voc(tmp_path, {'a': [('dent', 1, 1, 9, 9)], 'b': [('scratch', 1, 1, 9, 9)]})
    with pytest.raises(UsageError, match=said):
        DATASETS.build(dict(dict(type='kgl_mm.VocBoxes', data_root=str(tmp_path)), **change))


@pytest.mark.parametrize(
    ('box', 'right'), [((1, 1, 32, 20), False), ((1, -1, 9, 9), False), ((9, 1, 8, 9), False), ((1, 1, 31, 21), True)]
)
def test_boxes_must_be_inside(tmp_path, box, right):
    write_voc(tmp_path, {'a': [('dent', *box)]})
    if right:
        assert len(voc(tmp_path)) == 1
        return
    with pytest.raises(UsageError, match=r'a.xml: the box \(.*\) is empty or outside the image of 30 x 20 pixels'):
        voc(tmp_path)


def test_files_that_are_missing_or_broken(tmp_path):
    root = write_voc(tmp_path / 'set', {'a': [('dent', 1, 1, 9, 9)], 'b': []})
    xml, image = root / 'ANNOTATIONS/b.xml', root / 'IMAGES/b.png'
    content = xml.read_text()
    xml.unlink()
    with pytest.raises(UsageError, match=r"no XML file for 1 of 2 images \(b\); .*missing='empty'"):
        voc(root)
    assert [len(voc(root, missing='empty').get_data_info(i)['gt_bboxes']) for i in range(2)] == [1, 0]
    xml.write_text(content.replace('30', '31'))
    with pytest.raises(UsageError, match=r'b.xml: says 31 x 20 pixels, but the image has 30 x 20'):
        voc(root)
    xml.write_text('<annotation>')
    with pytest.raises(UsageError, match=r'b.xml: not a file of VOC boxes'):
        voc(root)
    xml.write_text(content.replace('</annotation>', '<object><name>x</name></object></annotation>'))
    with pytest.raises(UsageError, match=r'b.xml: not a file of VOC boxes'):
        voc(root)
    xml.write_text(content)
    image.write_bytes(b'no image')
    with pytest.raises(UsageError, match=r'b.png: not a readable image'):
        voc(root)
    image.unlink()
    with pytest.raises(UsageError, match=r'no image for a file of annotations \(b.xml\)'):
        voc(root)
    (root / 'IMAGES').rename(root / 'PICTURES')
    with pytest.raises(UsageError, match=r'no folder images; .*it holds ANNOTATIONS; PICTURES'):
        voc(root)


@pytest.fixture
def record(tmp_path):
    for name in 'ab':
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.full((20, 30), 99 if name == 'a' else 1, np.uint8))
    content = dict(
        images=[dict(id=7, file_name='b.png', width=30, height=20), dict(id=4, file_name='a.png')],
        categories=[dict(id=3, name='dent'), dict(id=9, name='stain')],
        annotations=[
            dict(id=1, image_id=7, category_id=9, bbox=[2, 3, 4, 5.5]),
            dict(id=2, image_id=7, category_id=3, bbox=[0, 0, 30, 20]),
        ],
    )

    def record(name='boxes.json', **changes):
        (tmp_path / name).write_text(json.dumps(content | changes))
        return str(tmp_path / name)

    return record


def test_boxes_of_coco(record):
    dataset = coco(ann_file=record())
    assert names(dataset) == ['a', 'b']
    assert dataset.metainfo['classes'] == ('dent', 'stain')
    info = dataset.get_data_info(1)
    assert info['gt_bboxes'].tolist() == [[2, 3, 6, 8.5], [0, 0, 30, 20]]
    assert info['gt_bboxes_labels'].tolist() == [1, 0]
    assert not len(dataset.get_data_info(0)['gt_bboxes'])
    one = [dict(image_id=7, category_id=3, bbox=[0, 0, 30, 20])]
    assert coco(ann_file=record(annotations=one)).metainfo['classes'] == ('dent', 'stain')  # all that the file knows


def test_one_file_a_part(record):
    files = dict(train=record(), test=record('test.json', images=[dict(id=1, file_name='a.png')], annotations=[]))
    assert names(coco(ann_file=files)) == ['a', 'b']
    assert names(coco(ann_file=files, split='test', classes=['dent', 'stain'])) == ['a']
    with pytest.raises(UsageError, match="ann_file='valid': not one of train, val, test"):
        coco(ann_file=dict(train=record(), valid=record()))


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(annotations=[dict(image_id=1, category_id=3, bbox=[0, 0, 1, 1])]), 'has image_id 1, which'),
        (dict(annotations=[dict(image_id=7, category_id=1, bbox=[0, 0, 1, 1])]), 'has category_id 1, which'),
        (dict(annotations=[]), 'none of the 2 training images has a box'),
        (dict(images=[dict(id=7, file_name='a.png'), dict(id=7, file_name='b.png')]), 'two images have one id'),
        (dict(images=[dict(id=7)], annotations=[]), "it lacks 'file_name'"),
        (dict(images=[dict(id=7, file_name='c.png')], annotations=[]), 'c.png: no such file'),
        (dict(images=[]), 'an annotation has image_id 7, which'),
        (dict(images=[], annotations=[]), 'no images with annotations'),
        (dict(annotations=[dict(image_id=7, category_id=3, bbox=[0, 0])]), 'not a file of COCO boxes'),
        (dict(annotations=[dict(image_id=7, category_id=3, bbox=[0, 0, 1, 1], iscrowd=1)]), 'the box of a crowd'),
    ],
)
def test_broken_files_of_coco(record, changes, said):
    with pytest.raises(UsageError, match=said):
        coco(ann_file=record(**changes))


def test_no_file_of_coco(tmp_path):
    with pytest.raises(UsageError, match=r'none.json: cannot be read \(No such file'):
        coco(ann_file=str(tmp_path / 'none.json'))


def test_boxes_move_with_their_image(tmp_path):
    """A white rectangle stays inside its box."""
    root = write_voc(tmp_path, {'a': [('dent', 4, 5, 9, 15)]})
    image = np.zeros((20, 30), np.uint8)
    image[4:15, 3:9] = 255
    cv2.imwrite(str(root / 'IMAGES/a.png'), image)
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='kgl_mm.Resize', scale=(90, 90), keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='kgl_mm.PackBoxes'),
    ]
    dataset = voc(root, pipeline=steps)
    seen = {}
    for epoch in range(12):
        dataset.set_epoch(0, epoch)
        packed = dataset[0]
        sample = packed['data_samples']
        (box,) = sample.gt_instances.bboxes.tolist()
        rows, columns = np.nonzero(packed['inputs'][0].numpy() > 127)
        np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1)
        assert sample.gt_instances.labels.tolist() == [0]
        assert sample.img_shape == (60, 90)
        assert sample.scale_factor == (3, 3)
        seen.setdefault(sample.get('flip'), box)
        dataset.set_epoch(0, epoch)
        assert dataset[0]['data_samples'].gt_instances.bboxes.tolist() == [box]  # drawn from where it is
    assert seen == {False: [9, 12, 27, 45], True: [63, 12, 81, 45]}


def test_an_error_in_a_pipeline_stays_what_it_is(tmp_path):
    dataset = voc(write_voc(tmp_path, {'a': [('dent', 1, 1, 9, 9)]}))
    dataset.pipeline = lambda info: 1 // 0
    with pytest.raises(ZeroDivisionError) as error:
        dataset[0]
    assert error.value.__notes__ == [f'while preparing {tmp_path}/IMAGES/a.png']


def test_good_is_what_has_no_box(tmp_path):
    root = write_voc(tmp_path, {'a': [('dent', 1, 1, 9, 9)], 'b': [('scratch', 1, 1, 9, 9)]})
    assert good_indices(voc(root)) == []
    assert good_indices(voc(write_voc(root, {'c': []}))) == [2]


def test_what_does_not_move_boxes_is_refused(tmp_path):
    root = write_voc(tmp_path, {'a': [('dent', 4, 5, 9, 15)]})
    with pytest.raises(UsageError, match='RandomResizedCrop moves the image and not its boxes'):
        voc(root, pipeline=[dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=8)])
    flip = dict(type='torchvision/RandomHorizontalFlip')
    for hidden in (flip, dict(type='RandomApply', transforms=[dict(type='Rotate', angle=90.0)])):
        with pytest.raises(UsageError, match=r'(torchvision/RandomHorizontalFlip|Rotate) moves the image'):
            voc(root, pipeline=[dict(type='LoadImageFromFile'), hidden])


def test_the_same_image_in_two_parts_is_warned_of(tmp_path, monkeypatch):
    root = write_voc(tmp_path, {f'{i}': [('dent', 1, 1, 9, 9)] for i in range(10)})
    for path in (root / 'IMAGES').iterdir():
        path.write_bytes((root / 'IMAGES/0.png').read_bytes())
    said = []
    monkeypatch.setattr(box_dataset, 'print_log', lambda text, *_, **__: said.append(text))
    voc(root, test_fraction=0.5)
    assert '1 images stand in more than one split' in said[0]


def test_a_box_without_width_or_height_is_taken_away():
    results = dict(
        img=np.zeros((9, 9, 3), np.uint8), gt_bboxes=[[1, 1, 1, 5], [1, 1, 5, 1], [1, 1, 2, 2]],
        gt_bboxes_labels=np.array([0, 1, 2]),
    )  # fmt: skip
    assert PackBoxes()(results)['data_samples'].gt_instances.labels.tolist() == [2]
