from .teacher_student_detector import TeacherStudentDetector
from .torchvision_detector import TorchvisionDetector

__all__ = ['TeacherStudentDetector', 'TorchvisionDetector']
