import csv
import json

import cv2
import numpy as np
import pytest

from kgl_mm.evaluation import functional


@pytest.fixture
def write_run(tmp_path):
    """A function that writes a work directory as a run leaves it, without configs and checkpoints, and gives it."""

    def write(stages, names=None, threshold=0.5, images=True):
        root = tmp_path / 'run'
        metrics, state = {}, {}
        for stage, (scores, labels) in stages.items():
            folder = root / stage
            folder.mkdir(parents=True)
            paths = names or [f'part{index}.png' for index in range(len(scores))]
            paths = [str(tmp_path / 'images' / path) for path in paths]
            (tmp_path / 'images').mkdir(exist_ok=True)
            for index, path in enumerate(paths):
                if images:
                    cv2.imwrite(path, np.full((20, 30), 40 + index % 200, np.uint8))
            odds = functional.log_odds(np.stack([1 - np.array(scores), scores], 1))
            with (folder / 'test_scores.csv').open('w', newline='') as file:
                writer = csv.writer(file)
                writer.writerow(['sample_idx', 'img_path', 'label', 'score', 'log_odds', 'p0', 'p1'])
                for row in zip(
                    range(len(scores)), paths, labels, scores, odds, 1 - np.array(scores), scores, strict=True
                ):
                    writer.writerow(row)
            found = functional.at_threshold(scores, labels, threshold)
            facts = dict(found, threshold=threshold, threshold_calibrated=0, num_images=len(scores), seed=7)
            facts['versions'] = {'kgl_mm': '0'}
            if 0 < sum(labels) < len(labels):
                facts |= dict(AP=functional.average_precision(scores, labels), AP_low=0.125, AP_high=0.875)
            metrics[stage], state[stage] = {'test': facts}, {'done': True}
        (root / 'metrics.json').write_text(json.dumps(metrics))
        (root / 'state.json').write_text(json.dumps({'stages': state}))
        return root

    return write
