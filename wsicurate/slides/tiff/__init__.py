"""The direct TIFF reader: directories, pages, levels."""
