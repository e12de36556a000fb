"""The most similar vectors of every vector: exactly for few, by an inverted file for many."""
