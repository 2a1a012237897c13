"""A trained model as one file for a runtime without torch: its graph, its metadata, and the proof that it is the same.

``graph`` needs torch and the mm packages; what runs the files is :mod:`kgl_mm.inspection.exported_network`.
"""
