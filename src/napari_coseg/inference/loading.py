"""Load models and adapters onto a device."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari_coseg.core.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import CosegModel, SegmentationModel

DEFAULT_MODEL = "default"
SHIPPED = (DEFAULT_MODEL, "multi-organ", "cbct-synthetic")
"""Models that come with the package, by name; ``weights/<name>.safetensors`` holds each."""
_ORIGINS: WeakKeyDictionary[SegmentationModel, dict[str, Any]] = WeakKeyDictionary()


def list_models() -> dict[str, ModelCard]:
    """List the models that `load_model` finds by name.

    Returns
    -------
    dict
        Model cards by name: classes (``semantic_classes``, ``instance_classes``), pixel size,
        training data and scores.

    Raises
    ------
    CheckpointError
        If the weights of a model are missing from this installation.
    """
    from napari_coseg.models.checkpoints.native import read_card

    return {name: read_card(weights_path(name)) for name in SHIPPED}


def load_model(
    source: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    adapter: str | Path | None = None,
) -> CosegModel:
    """Load a network, ready to segment.

    Parameters
    ----------
    source
        A name from `list_models`, or the path of a weights file.
    device
        "auto" (CUDA if available, else the CPU), or a torch device: "cpu", "cuda", "cuda:1", "mps".
    adapter
        File of an adapter that was fine-tuned from `source`; None for no adapter.

    Returns
    -------
    CosegModel
        For `segment` and `evaluate`; ``model.card`` has its classes.

    Raises
    ------
    CheckpointError
        If the file is missing, is no weights file, or is of a family without regions and objects;
        or if the adapter belongs to another model.
    SettingsError
        If the device is not available.
    """
    from napari_coseg.models.base import as_two_task

    return as_two_task(load_any_family(source, device, adapter=adapter))


def load_any_family(
    source: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    adapter: str | Path | None = None,
) -> SegmentationModel:
    """Load a network of any family, ready for `segment`; see `load_model`."""
    from napari_coseg.models.base import as_two_task
    from napari_coseg.models.checkpoints import native

    path = weights_path(source)
    model = native.load(path, choose_device(device)).eval()
    _ORIGINS[model] = {"file": path.name, "sha256": native.file_sha256(path)}
    return model if adapter is None else switch_adapter(as_two_task(model), adapter)


def switch_adapter(base: CosegModel, adapter: str | Path) -> CosegModel:
    """Copy a model from `load_model` and put an adapter on the copy.

    Raises
    ------
    CheckpointError
        If the model is not from a file or has an adapter, or the adapter is of another model.
    """
    from napari_coseg.models.checkpoints import native
    from napari_coseg.models.checkpoints.adapters import with_adapter

    origin = model_origin(base)
    if "sha256" not in origin or "adapter" in origin:
        raise CheckpointError(
            "adapters need the base model from load_model without another adapter; load that"
        )
    path = Path(adapter).expanduser()
    adapted = with_adapter(base, origin["sha256"], path)
    _ORIGINS[adapted] = {
        **origin,
        "adapter": {"file": path.name, "sha256": native.file_sha256(path)},
    }
    return adapted


def weights_path(source: str | Path = DEFAULT_MODEL) -> Path:
    """Path of a weights file, given by name or path; raises `CheckpointError` if it is missing."""
    if str(source) in SHIPPED:
        folder = Path(str(resources.files("napari_coseg.models"))) / "weights"
        path = folder / f"{source}.safetensors"
        if not path.is_file():
            raise CheckpointError(
                f"the weights {str(source)!r} are missing from this installation ({path}); "
                "reinstall the package, or give a weights file"
            )
        return path
    path = Path(source).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"there is no weights file {path}; give the path of a .safetensors file, or "
            f"the name of a shipped model: {', '.join(SHIPPED)}"
        )
    return path


def choose_device(name: str = "auto") -> str:
    """Check that a device is available; "auto" is CUDA if available, else the CPU."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise SettingsError(
            f"device {name!r} is not available ({first_line}); use 'cpu' or 'auto'"
        ) from error
    return name


def model_origin(model: SegmentationModel) -> dict[str, Any]:
    """File names and hashes of a model from `load_model` and its adapter; else empty."""
    return dict(_ORIGINS.get(model, {}))
