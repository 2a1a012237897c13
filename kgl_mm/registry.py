"""Child registries of scope ``kgl_mm``: ``type='kgl_mm.X'`` resolves in any config without ``custom_imports``.

mmengine imports this module by its exact name and swallows an ImportError in it, so it imports nothing else.
"""

from mmengine.registry import DATA_SAMPLERS as MM_DATA_SAMPLERS
from mmengine.registry import DATASETS as MM_DATASETS
from mmengine.registry import HOOKS as MM_HOOKS
from mmengine.registry import METRICS as MM_METRICS
from mmengine.registry import MODELS as MM_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MM_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MM_TRANSFORMS
from mmengine.registry import VISUALIZERS as MM_VISUALIZERS
from mmengine.registry import Registry


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope='kgl_mm', locations=list(locations))


DATASETS = _child('dataset', MM_DATASETS, 'kgl_mm.datasets')
DATA_SAMPLERS = _child('data sampler', MM_DATA_SAMPLERS, 'kgl_mm.datasets')
TRANSFORMS = _child('transform', MM_TRANSFORMS, 'kgl_mm.datasets')
MODELS = _child('model', MM_MODELS, 'kgl_mm.models')
HOOKS = _child('hook', MM_HOOKS, 'kgl_mm.engine')
OPTIM_WRAPPERS = _child('optimizer wrapper', MM_OPTIM_WRAPPERS, 'kgl_mm.engine')
METRICS = _child('metric', MM_METRICS, 'kgl_mm.evaluation.defect_metric', 'kgl_mm.evaluation.box_metric')
VISUALIZERS = _child('visualizer', MM_VISUALIZERS, 'kgl_mm.visualization.visualizer')
PRIOR_SOURCES = Registry('prior source', scope='kgl_mm', locations=['kgl_mm.priors.sources'])
SALIENCY = Registry('saliency method', scope='kgl_mm', locations=['kgl_mm.saliency'])
