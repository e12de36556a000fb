"""A slide file -> pixels at a physical resolution."""
