"""Geometry and a tissue mask -> a plan; the plan -> patches. Arrays and callables in, arrays out."""
