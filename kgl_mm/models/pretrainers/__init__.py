from .anomaly_guided_pretrainer import AnomalyGuidedPretrainer

__all__ = ['AnomalyGuidedPretrainer']
