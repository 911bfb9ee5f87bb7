"""From a name or a file to a network on a device."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari_coseg.core.errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import CosegModel

DEFAULT_MODEL = "default"
_ORIGINS: WeakKeyDictionary[CosegModel, dict[str, Any]] = WeakKeyDictionary()


def list_models() -> dict[str, ModelCard]:
    """List the models that `load_model` finds by name.

    Returns
    -------
    dict
        Model cards by name. A card says what the model finds (``semantic_classes``,
        ``instance_classes``), at which pixel size, what it was trained on, and how well it scores.

    Raises
    ------
    CheckpointError
        If the weights of a model are missing from this installation.
    """
    from napari_coseg.models.checkpoints.native import read_card

    return {DEFAULT_MODEL: read_card(weights_path(DEFAULT_MODEL))}


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
        A name that `list_models` gives, or the path of a weights file.
    device
        "auto" (CUDA where there is one, else the CPU), or a name that torch knows: "cpu", "cuda",
        "cuda:1", "mps".
    adapter
        File of an adapter that was fine-tuned from `source`; None for the weights as they are.

    Returns
    -------
    CosegModel
        For `segment` and `evaluate`; ``model.card`` says what it finds.

    Raises
    ------
    CheckpointError
        Where there is no such file, or it is not one of ours, or of a family that does not give
        regions and objects, or the adapter is of another model.
    SettingsError
        Where this machine has no such device.
    """
    from napari_coseg.models.base import as_two_task
    from napari_coseg.models.checkpoints import native

    path = weights_path(source)
    model = as_two_task(native.load(path, choose_device(device)))
    model.eval()
    _ORIGINS[model] = {"file": path.name, "sha256": native.file_sha256(path)}
    return model if adapter is None else switch_adapter(model, adapter)


def switch_adapter(base: CosegModel, adapter: str | Path) -> CosegModel:
    """A model that `load_model` gave, with an adapter; the model itself stays as it is.

    Raises
    ------
    CheckpointError
        Where the model did not come from a file, or the adapter is of another model.
    """
    from napari_coseg.models.checkpoints import native
    from napari_coseg.models.checkpoints.adapters import with_adapter

    origin = model_origin(base)
    if "sha256" not in origin or "adapter" in origin:
        raise CheckpointError(
            "an adapter goes on a base as load_model gave it, without another adapter; load that"
        )
    path = Path(adapter).expanduser()
    adapted = with_adapter(base, origin["sha256"], path)
    told = {"file": path.name, "sha256": native.file_sha256(path)}
    _ORIGINS[adapted] = {**origin, "adapter": told}
    return adapted


def weights_path(source: str | Path = DEFAULT_MODEL) -> Path:
    """Where the weights that `source` names lie on disk."""
    if str(source) == DEFAULT_MODEL:
        path = Path(str(resources.files("napari_coseg.models"))) / "weights" / "default.safetensors"
        if not path.is_file():
            raise CheckpointError(
                f"the default weights are missing from this installation ({path}); install the "
                "package again, or name a weights file"
            )
        return path
    path = Path(source).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"there is no weights file {path}; give the path of a .safetensors file, or "
            f"{DEFAULT_MODEL!r} for the model that comes with the package"
        )
    return path


def choose_device(name: str = "auto") -> str:
    """Check that this machine has the device; "auto" is CUDA where there is one, else the CPU."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise SettingsError(
            f"device {name!r} cannot be used here ({first_line}); use 'cpu' or 'auto'"
        ) from error
    return name


def model_origin(model: CosegModel) -> dict[str, Any]:
    """File name and hash of the weights of a model that `load_model` gave; else empty."""
    return dict(_ORIGINS.get(model, {}))
