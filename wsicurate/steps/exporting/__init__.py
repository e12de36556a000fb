"""The parts of `export`: what is to be written, and where."""
