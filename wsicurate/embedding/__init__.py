"""Patches -> vectors: encoder presets, timm models, weightless descriptors, batched inference."""
