from .teacher_student_detector import TeacherStudentDetector

__all__ = ['TeacherStudentDetector']
