"""Vectors -> decisions: neighbours, copies, leakage, retrieval, clustering, selection, metrics. Arrays in and out."""
