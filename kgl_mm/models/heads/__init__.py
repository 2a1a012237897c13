from .knowledge_injection_head import KnowledgeInjectionHead

__all__ = ['KnowledgeInjectionHead']
