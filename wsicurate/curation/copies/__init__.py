"""Copies (near-duplicates: the same tissue again): which pairs are, by vectors and pixels, and which stay."""
