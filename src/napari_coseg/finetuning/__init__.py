"""From reviewed labels to an adapter: what trains, how long it takes, what it gains and forgets.

    reviewed = sources.read_reviewed("colon.coseg")      # workspaces, labelled folders
    estimate.estimate(reviewed)                          # what it would take
    run.finetune(reviewed, "mine.safetensors")           # an adapter of the base
    napari_coseg.load_model(adapter="mine.safetensors")  # the base with it

This file, `reviewed` and `settings` load no torch.
"""

from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings

__all__ = ["FinetuneSettings", "ReviewedImage", "ReviewedSet"]
