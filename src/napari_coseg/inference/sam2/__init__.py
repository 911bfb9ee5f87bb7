"""SAM2 prompted by points and boxes: its network, windows of an image, and masks in them.

Its files are downloaded by `models.checkpoints.download`; `models.checkpoints.from_sam2` starts our
networks from them.
"""
