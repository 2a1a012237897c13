"""What :class:`~kgl_mm.priors.sources.ClipSource` asks CLIP and what it takes from it; open_clip is imported on use."""

from .embeddings import patches_and_whole, text_directions
from .loading import load
from .prompts import in_words, prompts, wordings

__all__ = ['in_words', 'load', 'patches_and_whole', 'prompts', 'text_directions', 'wordings']
