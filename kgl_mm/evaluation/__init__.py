"""Pure functions on arrays in ``functional`` (numpy alone), and metrics for mmengine on top of them."""

__all__ = ['BoxMetric', 'DefectMetric']


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from kgl_mm._require import require_mm

    require_mm()
    from kgl_mm.evaluation.box_metric import BoxMetric
    from kgl_mm.evaluation.defect_metric import DefectMetric

    return dict(BoxMetric=BoxMetric, DefectMetric=DefectMetric)[name]
