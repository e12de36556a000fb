"""DICOM whole-slide images: the files of a series, and their frames."""
