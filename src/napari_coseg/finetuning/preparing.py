"""From reviewed images and a base to all that a run needs; whatever cannot be is told here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from napari_coseg.core.errors import DatasetError
from napari_coseg.finetuning.classes import ClassPlan, plan_classes
from napari_coseg.finetuning.crops import ReviewedCrops
from napari_coseg.finetuning.held_back import Divided, hold_back
from napari_coseg.finetuning.network import freeze_all_but, frozen_fingerprint, parts_to_train
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FinetuneSettings
from napari_coseg.inference.loading import load_model, model_origin, weights_path
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.adapters import AdapterCard, start_of
from napari_coseg.training.loop import in_channels_last

UNKNOWN_PIXEL_SIZE = (
    "the pixel size of {} is not known; the base model's {:g} um is taken, here and in segmenting"
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is settled before anything is measured or trained.

    Parameters
    ----------
    base, base_path, base_sha256
        As loaded; never changed.
    network
        What trains: a copy of the base with the adapter's classes.
    trained
        Its parameters that train, by name; all others are frozen.
    frozen_sha256
        Of all the others.
    reviewed
        Checked, in the class ids of the adapter.
    divided
        Its images to learn from, and those held back.
    notes
        For the user.
    """

    base: CosegModel
    base_path: Path
    base_sha256: str
    network: CosegModel
    parts: tuple[str, ...]
    trained: dict[str, nn.Parameter]
    frozen_sha256: str
    classes: ClassPlan
    reviewed: ReviewedSet
    divided: Divided
    settings: FinetuneSettings
    notes: tuple[str, ...]

    @property
    def pixel_size_um(self) -> float:
        """Of the model."""
        return self.base.card.pixel_size_um

    def area_px(self) -> float:
        """Pixels to learn from, on the model's grid."""
        return float(sum(_area(image, self.pixel_size_um) for image in self.divided.to_learn))

    def crops(
        self,
        images: tuple[ReviewedImage, ...],
        size_px: int,
        seed: int,
        changed_input: bool = False,
    ) -> ReviewedCrops:
        """Crops of some images, on the model's grid, as the network now sees them."""
        settings = self.settings.augmentation_of(changed_input)
        if self.network.card.normalisation.stretch:
            images = tuple(image.stretched() for image in images)
        return ReviewedCrops(images, size_px, self.pixel_size_um, seed, settings)

    def of_base_kind(self, images: ReviewedSet) -> tuple[ReviewedImage, ...]:
        """Images of the base's own kind, to learn along or to score, in the adapter's class ids.

        Raises
        ------
        DatasetError
            Where nothing of them is reviewed, or they have classes that are not known: such a
            region would be learnt, and scored, as background.
        """
        images = images.checked()
        self.classes.check_known(images)
        return self.classes.applied(images).checked().images


def prepare(
    reviewed: ReviewedSet, base: str | Path, settings: FinetuneSettings, device: str = "auto"
) -> Prepared:
    """Check the reviews against the base, and build what trains.

    Raises
    ------
    DatasetError
        Where nothing is reviewed, nothing is left to learn from, or classes do not fit.
    SettingsError
        Where settings do not fit the model or the machine.
    CheckpointError
        Where the base cannot be loaded.
    """
    settings.check_lora()
    reviewed = reviewed.checked()
    path = weights_path(base)
    model = load_model(path, device)
    sha256 = model_origin(model)["sha256"]
    classes = plan_classes(model.card, reviewed, settings)
    reviewed = classes.applied(reviewed).checked()
    if not reviewed.reviews().objects and not any(
        image.semantic_reviewed is not None and image.semantic_reviewed.any()
        for image in reviewed.images
    ):
        raise DatasetError(
            f"{reviewed.source}: no whole object and no region is reviewed; objects that the "
            "border of a reviewed region cuts do not count: mark larger regions"
        )
    divided = hold_back(reviewed, settings.held_back_fraction)
    notes = [
        *classes.notes,
        *_unknown_sizes(reviewed, model),
        *_other_finders(reviewed, model.card.name, sha256),
    ]
    if settings.held_back_fraction and not divided.held_back:
        notes.append("too little is reviewed to hold a part back: nothing scores the result")
        divided = Divided(reviewed.images, ())
    card = AdapterCard(
        name="start",
        base_name=model.card.name,
        base_sha256=sha256,
        model=classes.card,
        semantic_origins=classes.semantic_origins,
        instance_origins=classes.instance_origins,
        parts=(),
        lora_rank=settings.lora_rank,
    )
    network = in_channels_last(start_of(model, card))
    multiple = network.size_multiple
    settings = replace_crop(settings, -(-settings.crop_px // multiple) * multiple)
    parts = parts_to_train(network, settings)
    trained = freeze_all_but(network, parts)
    return Prepared(
        base=model,
        base_path=path,
        base_sha256=sha256,
        network=network,
        parts=parts,
        trained=trained,
        frozen_sha256=frozen_fingerprint(network.state_dict(), trained),
        classes=replace(classes, card=network.card),
        reviewed=reviewed,
        divided=divided,
        settings=settings,
        notes=tuple(notes),
    )


def replace_crop(settings: FinetuneSettings, crop_px: int) -> FinetuneSettings:
    """The same settings with another size of crops."""
    return settings.model_copy(update={"crop_px": crop_px})


def _area(image: ReviewedImage, pixel_size_um: float) -> float:
    zoom = (image.pixel_size_um or pixel_size_um) / pixel_size_um
    return float(image.reviewed.sum()) * zoom**2


def _other_finders(reviewed: ReviewedSet, name: str, sha256: str) -> list[str]:
    """Said where a person has corrected another model's labels than the one that is trained."""
    others = [found for found in reviewed.found_by if found.sha256 != sha256]
    if not others:
        return []
    names = dict.fromkeys(found.model or "a model without a name" for found in others)
    what = "the labels" if len(others) == len(reviewed.found_by) else "some of the labels"
    return [
        f"{what} that were corrected are of {', '.join(names)}, and another base is fine-tuned: "
        f"{name}"
    ]


def _unknown_sizes(reviewed: ReviewedSet, model: CosegModel) -> list[str]:
    names = [image.name for image in reviewed.images if image.pixel_size_um is None]
    if not names:
        return []
    told = names[0] if len(names) == 1 else f"{len(names)} images"
    return [UNKNOWN_PIXEL_SIZE.format(told, model.card.pixel_size_um)]
