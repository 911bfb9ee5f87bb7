"""SAM2 with prompts of points and boxes, for single objects."""
