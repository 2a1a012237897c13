import tracemalloc

import cv2
import numpy as np
from mmengine.registry import VISUALIZERS

from kgl_mm.visualization import DefectVisualizer, draw_contact_sheet, overlay

IMAGE, PRIOR = np.random.default_rng(0).integers(0, 256, (64, 32), np.uint8), np.linspace(0, 2, 64).reshape(8, 8)


def build(save_dir):
    cfg = dict(type='kgl_mm.DefectVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    return VISUALIZERS.build(dict(cfg, name=str(save_dir), save_dir=str(save_dir)))


def test_a_config_builds_it_and_pictures_arrive_in_their_colours(tmp_path):
    visualizer = build(tmp_path)
    assert isinstance(visualizer, DefectVisualizer)
    sheet = draw_contact_sheet({'first': [dict(image=IMAGE, prior=PRIOR)]})
    visualizer.add_prior('kos01/Part5', IMAGE, PRIOR, IMAGE > 250, step=3, top=2)
    visualizer.add_contact_sheet('sheet', sheet)
    folder = tmp_path / 'vis_data/vis_image'
    assert (cv2.imread(str(folder / 'kos01_Part5_3.png')) == overlay(IMAGE, PRIOR, IMAGE > 250, 2)).all()
    drawn = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert (cv2.imread(str(folder / 'sheet_0.png')) == drawn).all()


def test_many_pictures_take_the_memory_of_one(tmp_path):
    visualizer = build(tmp_path)
    tracemalloc.start()
    try:
        visualizer.add_prior('x', IMAGE, PRIOR)
        before = tracemalloc.get_traced_memory()[0]
        for step in range(500):
            visualizer.add_prior('x', IMAGE, PRIOR, step=step)
        assert tracemalloc.get_traced_memory()[0] - before < 20 * IMAGE.size
    finally:
        tracemalloc.stop()
    assert len(list((tmp_path / 'vis_data/vis_image').iterdir())) == 500
