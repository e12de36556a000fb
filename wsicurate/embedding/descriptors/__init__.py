"""Descriptors: features of colour and texture that need no weights, projected by fixed constants."""
