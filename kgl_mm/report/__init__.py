"""A run as one HTML file that needs nothing else: figures, pictures, a threshold to move, doubtful labels, priors."""

from kgl_mm._require import require_mm

require_mm()

from .report import REPORT, try_report, write_report  # noqa: E402

__all__ = ['REPORT', 'try_report', 'write_report']
