"""Patches of a store in other people's formats, one module each; `find` knows them by name."""
