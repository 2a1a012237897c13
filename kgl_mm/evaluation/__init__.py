"""Pure functions on arrays in ``functional`` (numpy alone), and ``DefectMetric`` for mmengine on top of them."""

__all__ = ['DefectMetric']


def __getattr__(name: str):
    if name != 'DefectMetric':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.evaluation.defect_metric import DefectMetric

    return DefectMetric
