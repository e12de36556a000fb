"""Files of other tools: patches, coordinates and features, as they lie on disk."""
