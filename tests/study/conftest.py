import pytest


@pytest.fixture
def rows():
    """A function that makes rows of one setting from AP by seed and fold, ``None`` for a run that failed."""

    def build(values, stage='stage2', key='', **settings):
        found = []
        for seed, folds in values.items():
            for fold, value in enumerate(folds):
                done = value is not None
                metrics = dict(test_AP=str(value), test_FP='2', test_FN='1') if done else {}
                status = 'done' if done else 'failed'
                row = dict(settings, seed=str(seed), fold=str(fold), stage=stage, status=status, error='', stale='')
                name = key or ''.join(settings.values()) + stage
                found.append(row | metrics | dict(seconds='10', key=f'{name}-{seed}-{fold}', code='now'))
        return found

    return build
