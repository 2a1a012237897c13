from .base import PriorSource, as_source
from .clip_source import ClipSource
from .description_source import DescriptionSource
from .folder_source import FolderSource
from .patch_memory import PatchMemorySource
from .saliency_source import SaliencySource
from .teacher_student import TeacherStudentSource, calibrate, standardize

__all__ = [
    'ClipSource',
    'DescriptionSource',
    'FolderSource',
    'PatchMemorySource',
    'PriorSource',
    'SaliencySource',
    'TeacherStudentSource',
    'as_source',
    'calibrate',
    'standardize',
]
