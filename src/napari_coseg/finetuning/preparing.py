"""Checks reviewed images against a base model, and builds the network that trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.finetuning.classes import ClassPlan, plan_classes
from napari_coseg.finetuning.crops import CropPlaces, ReviewedCrops
from napari_coseg.finetuning.held_out import Divided, hold_out
from napari_coseg.finetuning.hooks import RunControl
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import HEADS, THROUGH_ENCODER, FinetuneSettings
from napari_coseg.inference.loading import load_model, model_origin, weights_path
from napari_coseg.models.adapted import parts_of, take_over
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.adapters import AdapterCard, fingerprint, start_of
from napari_coseg.training.settings import OptimiserSettings, TrainingSettings, ValidationSettings
from napari_coseg.training.stepping import Stepper, make_optimiser
from napari_coseg.training.trainable import freeze_statistics, in_channels_last, train_only

UNKNOWN_PIXEL_SIZE = (
    "the pixel size of {} is not known; the base model's {:g} um is assumed, here and in segmenting"
)
LONGEST_WARMUP = 20
"""Steps."""


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
        Its images to train on, and those held out.
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

    @property
    def device(self) -> str:
        return str(next(self.network.buffers()).device)

    def area_px(self) -> float:
        """Pixels to train on, on the model's grid."""
        return float(sum(_area(image, self.pixel_size_um) for image in self.divided.training))

    def fingerprint(self) -> str:
        """Hash of all that does not train: weights, and the statistics of normalisation."""
        state = self.network.state_dict()
        return fingerprint(state, state.keys() - self.trained.keys())

    def crops(
        self,
        crop_px: int,
        replayed: tuple[ReviewedImage, ...] = (),
        changed_input: bool = False,
    ) -> ReviewedCrops:
        """Crops of the images to train on and of others to replay, as the network now sees them.

        Parameters
        ----------
        changed_input
            Whether the images' intensities are changed before the network sees them.
        """
        settings = self.settings

        def places(images: tuple[ReviewedImage, ...], changed: bool, seed: int) -> CropPlaces:
            if self.network.card.normalisation.stretch:
                images = tuple(image.stretched() for image in images)
            augmentation = settings.augmentation_of(changed)
            return CropPlaces(images, self.pixel_size_um, seed, augmentation)

        return ReviewedCrops(
            places(self.divided.training, changed_input, settings.seed),
            crop_px,
            self.pixel_size_um,
            settings.seed,
            places(replayed, False, settings.seed + 1) if replayed else None,
            settings.replay_fraction,
        )

    def of_base_kind(self, images: ReviewedSet) -> tuple[ReviewedImage, ...]:
        """Images of the base's own kind, to replay or to score, in the adapter's class ids.

        Raises
        ------
        DatasetError
            Where nothing of them is reviewed, or they have classes that are not known: such a
            region would be trained on, and scored, as background.
        """
        images = images.checked()
        self.classes.check_known(images)
        return self.classes.applied(images).checked().images

    def normalise(self, normalisation: Normalisation) -> None:
        """Let the network see images through this normalisation."""
        card = self.network.card.model_copy(update={"normalisation": normalisation})
        take_over(self.network, card)

    def training(
        self,
        precision: str,
        steps: int = 1,
        validate_every: int = 1,
        recompute: bool | None = None,
    ) -> TrainingSettings:
        """What the training loop is given.

        Parameters
        ----------
        recompute
            Whether the encoder's blocks are computed twice; None: where memory runs out.
        """
        settings = self.settings
        if settings.speed == "heads":
            recompute = False  # the encoder does not run
        optimiser = OptimiserSettings(
            learning_rate=settings.rate(),
            beta2=0.99,
            schedule="cosine",
            warmup_steps=min(LONGEST_WARMUP, steps // 10),
            freeze_statistics_from_step=0,
        )
        return TrainingSettings.from_mapping(
            {
                "name": "fine-tuning",
                "seed": settings.seed,
                "steps": steps,
                "precision": precision,
                "activation_checkpointing": recompute,
                "trained_parts": self.parts,
                "optimiser": optimiser,
                "losses": settings.losses,
                "validation": ValidationSettings(every_steps=validate_every),
                "checkpoint_every_s": settings.checkpoint_every_s,
            }
        )

    def stepper(
        self, precision: str = "fp32", control: RunControl | None = None, recompute: bool = False
    ) -> Stepper:
        """What takes steps, to measure them: a context that undoes what it did to the network."""
        settings = self.training(precision, recompute=recompute)
        optimiser = make_optimiser(train_only(self.network, self.parts), settings.optimiser)
        self.network.train()
        freeze_statistics(self.network)
        stepper = Stepper(self.network, optimiser, settings, self.device)
        if control is not None:
            stepper.check = control
        return stepper


def prepare(
    reviewed: ReviewedSet, base: str | Path, settings: FinetuneSettings, device: str = "auto"
) -> Prepared:
    """Check the reviews against the base, and build what trains.

    Raises
    ------
    DatasetError
        Where nothing is reviewed, nothing is left to train on, or classes do not fit.
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
        image.semantic_known is not None and image.semantic_known.any() for image in reviewed.images
    ):
        raise DatasetError(
            f"{reviewed.source}: no whole object and no region is reviewed; objects that the "
            "border of a reviewed region cuts do not count: mark larger regions"
        )
    divided = hold_out(reviewed, settings.held_out_fraction)
    notes = [
        *classes.notes,
        *_unknown_sizes(reviewed, model),
        *_other_finders(reviewed, model.card.name, sha256),
    ]
    if settings.held_out_fraction and not divided.held_out:
        notes.append("too little is reviewed to hold a part out: nothing scores the result")
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
    settings = settings.with_crop(-(-settings.crop_px // multiple) * multiple)
    parts = _parts_to_train(network, settings)
    train_only(network, parts)
    prepared = Prepared(
        base=model,
        base_path=path,
        base_sha256=sha256,
        network=network,
        parts=parts,
        trained={name: p for name, p in network.named_parameters() if p.requires_grad},
        frozen_sha256="",
        classes=replace(classes, card=network.card),
        reviewed=reviewed,
        divided=divided,
        settings=settings,
        notes=tuple(notes),
    )
    return replace(prepared, frozen_sha256=prepared.fingerprint())


def _parts_to_train(network: CosegModel, settings: FinetuneSettings) -> tuple[str, ...]:
    """The parts that the settings choose of those that the network has.

    Raises
    ------
    SettingsError
        Where a part does not exist, is the trunk, or lies before the features that are cached.
    """
    allowed = [*HEADS, *(THROUGH_ENCODER if settings.speed == "adapters" else ())]
    possible = tuple(name for name in parts_of(network) if name in allowed)
    if settings.parts is None:
        return possible
    strange = [name for name in settings.parts if name not in possible]
    if strange or not settings.parts:
        hint = " (adapters, lora and neck at speed 'adapters')" * (settings.speed == "heads")
        raise SettingsError(
            f"{', '.join(strange) or 'no part'} cannot train at speed {settings.speed!r}; of this "
            f"model {', '.join(possible)} can{hint}"
        )
    return tuple(name for name in possible if name in settings.parts)


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
    images = names[0] if len(names) == 1 else f"{len(names)} images"
    return [UNKNOWN_PIXEL_SIZE.format(images, model.card.pixel_size_um)]
