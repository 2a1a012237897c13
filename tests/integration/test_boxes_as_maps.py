"""The boxes of a data set as maps, for FolderSource."""

import cv2
import numpy as np

XML = '<annotation>{}</annotation>'
BOX = '<object><name>crazing</name><bndbox>{}</bndbox></object>'


def test_boxes_become_maps(tool, run_here, tmp_path):
    images, annotations = tmp_path / 'voc/IMAGES', tmp_path / 'voc/ANNOTATIONS'
    for folder in ('x', 'y'):
        (images / folder).mkdir(parents=True)
        (annotations / folder).mkdir(parents=True)
    sides = dict(xmin=3, ymin=1, xmax=4, ymax=2)  # counted from 1, both ends inside
    inside = ''.join(f'<{side}>{value}</{side}>' for side, value in sides.items())
    for name, objects in {'x/a': BOX.format(inside), 'y/a': ''}.items():
        cv2.imwrite(str(images / f'{name}.jpg'), np.zeros((5, 6, 3), np.uint8))
        (annotations / f'{name}.xml').write_text(XML.format(objects))
    assert '2 maps in maps' in tool('benchmarks/boxes_as_maps.py', '--data', 'voc', '--out', 'maps').stdout
    expected = np.zeros((5, 6), np.uint8)
    expected[0:2, 2:4] = 255
    assert np.array_equal(cv2.imread(str(tmp_path / 'maps/IMAGES/x/a.png'), cv2.IMREAD_UNCHANGED), expected)
    assert not cv2.imread(str(tmp_path / 'maps/IMAGES/y/a.png'), cv2.IMREAD_UNCHANGED).any()
    status, said = run_here('benchmarks/boxes_as_maps.py', '--data', 'nowhere', '--out', 'maps')
    assert status == 2
    assert 'nowhere' in said
    (images / 'x/a.jpg').write_text('broken')
    status, said = run_here('benchmarks/boxes_as_maps.py', '--data', 'voc', '--out', 'maps')
    assert (status, 'a.jpg: cannot be read as an image' in said) == (2, True)
