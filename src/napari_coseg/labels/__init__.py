"""Algorithms on label arrays: tiling, decoding, editing, measuring, scoring. No torch."""
