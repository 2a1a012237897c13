from .anomaly_map_distill_loss import AnomalyMapDistillLoss, attention_map, map_distances
from .knowledge_guided_loss import KnowledgeGuidedLoss
from .saliency_consistency_loss import SaliencyConsistencyLoss

__all__ = [
    'AnomalyMapDistillLoss',
    'KnowledgeGuidedLoss',
    'SaliencyConsistencyLoss',
    'attention_map',
    'map_distances',
]
