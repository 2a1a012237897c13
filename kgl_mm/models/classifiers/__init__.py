from .consistent_classifier import ConsistentClassifier

__all__ = ['ConsistentClassifier']
