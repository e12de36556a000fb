"""Named, published settings, one TOML file each: read by `wsicurate.steps.recipes`."""
