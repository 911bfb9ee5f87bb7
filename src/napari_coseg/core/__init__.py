"""Errors, values, settings and the model card: what every other package imports."""
