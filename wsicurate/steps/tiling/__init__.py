"""What workers do for `tile`: the survey of a slide, its segments, the commit."""
