"""The sections on how a run came about: curves of its training, counts of its data, configurations, versions."""

import numpy as np

from kgl_mm.datasets.masks import decode
from kgl_mm.engine.hooks.backbone_hook import PICTURE

from . import page
from .charts import Line, line_chart
from .data import Run
from .pictures import Splits, embed

WIDE = 1000


def training_section(run: Run) -> str:
    """What the stages logged: losses, validation, weight of guidance, learning rate; where a pretrained one looks."""
    parts = []
    for stage in run.stages:
        losses = [name for name in stage.curves if name.split('.')[-1].startswith('loss')]
        checked = [name for name in ('AP', 'AUROC', 'macro_AP') if name in stage.curves]
        guidance = [name for name in stage.curves if name.startswith('lambda')]
        rates = [name for name in stage.curves if name == 'lr']
        groups = {'Loss': losses, 'Validation': checked, 'Weight of guidance': guidance, 'Learning rate': rates}
        charts = []
        for title, chosen in groups.items():
            lines = [
                Line(name, list(stage.curves[name]), list(stage.curves[name].values()), (i + 1) % 6)
                for i, name in enumerate(chosen)
            ]
            if lines:
                charts.append(line_chart(f'{title} of {stage.name}', lines, ('epoch', title.lower())))
        if charts:
            parts.append(f'<h3>{page.escape(stage.name)}</h3><div class="charts small">{"".join(charts)}</div>')
        if (stage.folder / PICTURE).is_file() and (drawn := decode(stage.folder / PICTURE)) is not None:
            parts.append(page.picture(embed(drawn, WIDE), f'attention of {stage.name}', 'Where the backbone looks'))
    return ''.join(parts) or page.sentence('No log of a training was found.')


def facts_section(run: Run, splits: Splits) -> str:
    """Counts of the data, seeds, versions and configurations."""
    parts, rows, reasons = [], [], []
    for stage in run.stages:
        for split in ('train', 'val', 'test'):
            dataset = splits.dataset(stage, split)
            if isinstance(dataset, str):
                reasons += [] if dataset == 'there is none' else [f'{stage.name}, {split}: {dataset}.']
                continue
            rows.append([f'{stage.name}, {split}', *_counts(splits.infos(stage, split), dataset)])
    if rows:
        parts.append(
            page.table(['Data', 'Images', 'Good', 'Defective', 'Defects with a mask'], rows, 'Counts of the data')
        )
    parts += [page.note(f'The images could not be counted. {reason}') for reason in reasons]
    rows = []
    for stage in run.stages:
        found = stage.metrics.get('test') or next(iter(stage.metrics.values()), {})
        if found:
            versions = ', '.join(f'{name} {version}' for name, version in found.get('versions', {}).items())
            checkpoint = stage.checkpoint.name if stage.checkpoint else '-'
            seed, config = (str(found.get(key, '-')) for key in ('seed', 'config'))
            rows.append([stage.name, seed, config, checkpoint, versions])
    if rows:
        head = ['Stage', 'Seed', 'Hash of the configuration', 'Checkpoint', 'Versions']
        parts.append('<h3>Seeds and versions</h3>' + page.table(head, rows, 'Seeds and versions'))
    for stage in run.stages:
        if stage.config_text:
            text = f'<pre tabindex="0">{page.escape(stage.config_text)}</pre>'
            parts.append(page.details(f'Configuration of {stage.name}', text))
    return ''.join(parts)


def _counts(infos: dict[str, dict], dataset) -> list[str]:
    labels = [int(np.ravel(info.get('gt_label', 0))[0]) for info in infos.values()]
    classes = dataset.metainfo.get('classes')
    good = sum(label == 0 for label in labels) if not classes or classes[0] == 'good' else None
    pairs = zip(labels, infos.values(), strict=True)
    masks = sum(bool(info.get('mask_path')) for label, info in pairs if label or good is None)
    split = ['-', '-'] if good is None else [str(good), str(len(labels) - good)]
    return [str(len(labels)), *split, str(masks)]
