"""Slides as tiles in a file: byte sources, tile codecs, and the reader that TIFF and DICOM share."""
