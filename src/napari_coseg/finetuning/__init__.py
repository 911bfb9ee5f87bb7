"""From reviewed labels to an adapter: what trains, how long it takes, what it gains and forgets.

`finetune` and `estimate` are the way in; importing them loads no torch yet.
"""

from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings

__all__ = ["FinetuneSettings", "ReviewedImage", "ReviewedSet"]
