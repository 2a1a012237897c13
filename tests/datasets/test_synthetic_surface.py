import cv2
import numpy as np
import pytest

from kgl_mm.datasets.synthetic_surface import SyntheticSurface
from kgl_mm.errors import UsageError

COUNTS = dict(num_train=(20, 12), num_test=(9, 3))


def test_reads_back_what_was_asked_for(tmp_path):
    counts = dict(COUNTS, num_val=(5, 2))
    units = {}
    for split in ('train', 'val', 'test'):
        data = SyntheticSurface(str(tmp_path / 'set'), split=split, **counts)
        infos = [data.get_data_info(i) for i in range(len(data))]
        labels = [info['gt_label'] for info in infos]
        assert (labels.count(0), labels.count(1)) == counts[f'num_{split}']
        for info in infos:
            assert cv2.imread(info['img_path'], cv2.IMREAD_UNCHANGED).shape == (64, 128)
            assert cv2.imread(info['mask_path'], cv2.IMREAD_UNCHANGED).any() == info['gt_label']
        units[split] = {info['unit'] for info in infos}
    assert sum(map(len, units.values())) == len(set.union(*units.values())) == 4 + 1 + 2


def test_default_folder_is_named_after_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = {SyntheticSurface(surface_seed=seed, **COUNTS).data_root for seed in (0, 0, 1)}
    assert {str(p.relative_to(tmp_path)) for p in (tmp_path / 'data/synthetic_surface').iterdir()} == roots
    assert len(roots) == 2


def test_takes_the_arguments_of_every_data_set(tmp_path):
    root = str(tmp_path / 'set')
    few = SyntheticSurface(root, num_positives=3, **COUNTS)
    assert sum(few.get_data_info(i)['gt_label'] for i in range(len(few))) == 3
    train, val = (SyntheticSurface(root, split=s, val_fraction=0.25, **COUNTS) for s in ('train', 'val'))
    assert len(train) + len(val) == 32
    load = [dict(type='mmcv.LoadImageFromFile', color_type='grayscale')]
    plain = SyntheticSurface(root, pipeline=load, **COUNTS)
    cached = SyntheticSurface(root, pipeline=load, cache='memory', **COUNTS)
    assert all(np.array_equal(plain[i]['img'], cached[i]['img']) for i in range(len(plain)))


def test_a_folder_of_other_settings_is_refused(tmp_path):
    SyntheticSurface(str(tmp_path / 'set'), **COUNTS)
    with pytest.raises(UsageError, match='choose another data_root'):
        SyntheticSurface(str(tmp_path / 'set'), difficulty=0.9, **COUNTS)


@pytest.mark.slow
def test_a_network_with_all_labels_can_tell(tmp_path):
    """Max and average pooling reach a test AP of 0.95."""
    import torch
    from sklearn.metrics import average_precision_score
    from torch import nn

    from kgl_mm.models import GlobalPooling, SlimVGG

    def load(split):
        data = SyntheticSurface(str(tmp_path / 'set'), split=split)
        infos = [data.get_data_info(i) for i in range(len(data))]
        images = np.stack([cv2.imread(info['img_path']) for info in infos]).transpose(0, 3, 1, 2)
        return torch.from_numpy(images).float() / 50 - 2.5, torch.tensor([info['gt_label'] for info in infos])

    torch.manual_seed(0)
    images, labels = load('train')
    model = nn.Sequential(SlimVGG(convs=(1, 1, 1, 1)), GlobalPooling('max_avg'))
    head = nn.Linear(128, 2)
    epochs, batch = 15, 8
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], 0.02, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(images) // batch))
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            flipped = images[chosen].flip([axis for axis in (2, 3) if torch.rand(()) < 0.5])
            loss = nn.functional.cross_entropy(head(model(flipped)[0]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, labels = load('test')
    with torch.no_grad():
        logits = torch.cat([head(model(part)[0]) for part in images.split(32)])
    assert average_precision_score(labels, logits[:, 1] - logits[:, 0]) >= 0.95
