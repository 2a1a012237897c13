from .anomaly_head import AnomalyHead
from .knowledge_injection_head import KnowledgeInjectionHead

__all__ = ['AnomalyHead', 'KnowledgeInjectionHead']
