"""The picture of a finished run of several stages: what the first and the last one see."""

import csv
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from kgl_mm.datasets.binding import bind_priors
from kgl_mm.datasets.masks import decode, read_mask
from kgl_mm.engine.hooks.prior_generation_hook import build_method
from kgl_mm.engine.loading import hook_settings, load_dataset, load_model
from kgl_mm.engine.stages import ALONE, stages_of
from kgl_mm.evaluation.functional import average_precision, precision_recall
from kgl_mm.files import read_json, write_atomically
from kgl_mm.saliency.base import resize
from kgl_mm.visualization import draw_comparison

PICTURE = 'guided.png'


def compare_stages(cfg: Config) -> Path | None:
    """Write ``WORK_DIR/guided.png``; nothing where there are no two tested stages of good and defective parts."""
    root = Path(cfg.work_dir)
    stages = stages_of(cfg)
    state = read_json(root / 'state.json')
    done = [name for name in stages if state.get('stages', {}).get(name, {}).get('done')]
    tables = {name: _table(root / name / 'test_scores.csv') for name in done}
    names = [name for name, table in tables.items() if table and 'score' in table[0]]
    if len(names) < 2:
        return None
    best = state.get('best')
    names = [names[0], best if best in names[1:] else names[-1]]
    before, after = ({row['img_path']: row for row in tables[name]} for name in names)
    paths = [path for path in before if path in after]
    labels = np.array([int(before[path]['label']) for path in paths]) != 0
    if before.keys() != after.keys() or labels.all() or not labels.any():
        return None
    scores = [np.array([float(table[path]['score']) for path in paths]) for table in (before, after)]
    odds = [np.array([float(table[path]['log_odds']) for path in paths]) for table in (before, after)]
    # where the defect is that guidance helped most
    shown = int(np.argmax(np.where(labels, scores[1] - scores[0], -np.inf)))
    maps, mask = [], None
    for name in names:
        dataset = load_dataset(stages[name], 'test')
        for loader in bind_priors(dataset):  # emptied as in the training
            loader.muted = state['stages'][name].get('trust', 1) == 0
        there = {dataset.get_data_info(i)['img_path']: i for i in range(len(dataset))}
        if (index := there.get(paths[shown])) is None:  # the data have moved since
            return None
        mask = dataset.get_data_info(index).get('mask_path')
        maps.append(_map(stages[name], root / state['stages'][name]['checkpoint'], dataset[index]))
    curves = [(*precision_recall(o, labels), average_precision(o, labels)) for o in odds]
    picture = draw_comparison(
        decode(paths[shown]),
        maps,
        read_mask(mask) if mask else None,
        scores,
        labels,
        shown,
        curves,
        [_called(name, stages[name]) for name in names],
    )
    write_atomically(root / PICTURE, picture)
    return root / PICTURE


def _called(name: str, stage: Config) -> str:
    if name.endswith(ALONE):
        return 'unguided'
    return 'guided' if stage.model.get('head', {}).get('type') == 'kgl_mm.KnowledgeInjectionHead' else name


def _map(stage: Config, checkpoint: Path, data: dict) -> np.ndarray:
    """What a model sees: what its segmentation branch marks, else the saliency that makes priors."""
    with DefaultScope.overwrite_default_scope(stage.get('default_scope', 'mmengine')):
        model = load_model(stage, checkpoint)
        head = getattr(model, 'head', None)
        settings = dict(type='kgl_mm.SegmentationMap') if hasattr(head, 'segment') else hook_settings(stage).view
        batch = model.data_preprocessor(pseudo_collate([data]), training=False)
        if getattr(head, 'channel', None) == 'given':  # methods that make priors show a model images alone
            with torch.no_grad():
                feats = model.eval().extract_feat(batch['inputs'])
                seg = head.segment(feats, head.prior_of(feats, batch['data_samples']))
            return resize(seg[:, 0].sigmoid(), batch['inputs'].shape[2:])[0].float().cpu().numpy()
        return build_method(settings, model)(batch['inputs'])[0].float().cpu().numpy()


def _table(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))
