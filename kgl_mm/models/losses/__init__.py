from .knowledge_guided_loss import KnowledgeGuidedLoss
from .saliency_consistency_loss import SaliencyConsistencyLoss

__all__ = ['KnowledgeGuidedLoss', 'SaliencyConsistencyLoss']
