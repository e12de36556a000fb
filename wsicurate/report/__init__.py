"""A store -> pictures to look at."""
