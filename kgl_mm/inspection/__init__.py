"""From images to verdicts and regions, with whatever network there is: neither torch nor the mm packages are needed."""

from kgl_mm._require import require_mm

require_mm(['cv2'])

from .images import Source, sources  # noqa: E402
from .regions import Region, find_regions  # noqa: E402
from .result import Judge, Result, Threshold  # noqa: E402

__all__ = ['Judge', 'Region', 'Result', 'Source', 'Threshold', 'find_regions', 'sources']
