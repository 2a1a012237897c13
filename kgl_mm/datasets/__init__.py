from kgl_mm._require import require_mm

require_mm()
