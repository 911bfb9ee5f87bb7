"""Scores of models on datasets, and ablations."""
