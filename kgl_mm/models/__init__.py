from kgl_mm._require import require_mm

require_mm()

from .backbones import SlimVGG  # noqa: E402
from .blocks import AFF, SimAM, SSPConv  # noqa: E402
from .classifiers import ConsistentClassifier  # noqa: E402
from .detectors import TeacherStudentDetector, TorchvisionDetector  # noqa: E402
from .heads import AnomalyHead, KnowledgeInjectionHead  # noqa: E402
from .losses import AnomalyMapDistillLoss, KnowledgeGuidedLoss, SaliencyConsistencyLoss  # noqa: E402
from .necks import GlobalPooling  # noqa: E402
from .pretrainers import AnomalyGuidedPretrainer  # noqa: E402

__all__ = [
    'AFF',
    'AnomalyGuidedPretrainer',
    'AnomalyHead',
    'AnomalyMapDistillLoss',
    'ConsistentClassifier',
    'GlobalPooling',
    'KnowledgeGuidedLoss',
    'KnowledgeInjectionHead',
    'SSPConv',
    'SaliencyConsistencyLoss',
    'SimAM',
    'SlimVGG',
    'TeacherStudentDetector',
    'TorchvisionDetector',
]
