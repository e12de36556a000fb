"""wsicurate."""
