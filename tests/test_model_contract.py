"""The contract of every model family: two-task families, and one for volumes with conditions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cases.tiny_meduniseg import meduniseg_card
from cases.tiny_models import tiny_card
from cases.tiny_volume_family import TinyVolumeFamily, volume_card
from napari_coseg.core.card import ModelCard, Normalisation, TaskEntry
from napari_coseg.core.errors import CheckpointError, ImageError, SettingsError
from napari_coseg.inference.loading import load_model
from napari_coseg.models import registry
from napari_coseg.models.base import NO_CONDITIONS, Conditions, SegmentationModel
from napari_coseg.models.checkpoints import native
from napari_coseg.models.outline import build_outline

ONE_OF_EACH = Conditions(("CT", "MR"), ("head", "brain"))
CARDS = {
    "coseg-plus": (tiny_card(), NO_CONDITIONS),
    "coseg-plus without types": (tiny_card(types=()), NO_CONDITIONS),
    "volumes of one channel": (volume_card(1), ONE_OF_EACH),
    "volumes of four channels": (volume_card(4), ONE_OF_EACH),
    "planes of two channels": (volume_card(2, dimensions=2), ONE_OF_EACH),
    "meduniseg, volumes": (meduniseg_card(), ONE_OF_EACH),
    "meduniseg, volumes of four channels": (meduniseg_card(4), ONE_OF_EACH),
    "meduniseg, planes": (meduniseg_card(3, dimensions=2), ONE_OF_EACH),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family is one file and this line."""
    place = "cases.tiny_volume_family:TinyVolumeFamily"
    monkeypatch.setitem(registry.FAMILIES, "tiny-volumes", place)


def built(card: ModelCard) -> SegmentationModel:
    torch.manual_seed(0)
    return registry.build(card).eval()


def batch_for(card: ModelCard) -> torch.Tensor:
    shape = (2, len(card.channels), *(8, 64, 64)[-card.dimensions :])
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize(("card", "conditions"), CARDS.values(), ids=CARDS)
class TestEveryFamily:
    @torch.inference_mode()
    def test_maps_are_those_that_the_card_describes(self, card, conditions) -> None:
        model, images = built(card), batch_for(card)
        maps = model.maps(model.normalise(images), conditions)
        found = {name: tuple(values.shape) for name, values in maps.items()}
        size = tuple(images.shape[2:])
        assert found == {m.name: (2, m.channels, *size) for m in card.output_maps}

    @torch.inference_mode()
    def test_a_batch_is_its_images(self, card, conditions) -> None:
        model = built(card)
        images = model.normalise(batch_for(card))
        together = model.maps(images, conditions)
        for row in range(2):
            own = Conditions(*(names[row : row + 1] for names in conditions))
            alone = model.maps(images[row : row + 1], own)
            for name, values in alone.items():
                torch.testing.assert_close(
                    values, together[name][row : row + 1], atol=1e-4, rtol=1e-4, msg=name
                )

    def test_parts_hold_every_parameter_once(self, card, conditions) -> None:
        model = built(card)
        held = [id(parameter) for part in model.parts().values() for parameter in part]
        assert len(held) == len(set(held))
        assert set(held) == {id(parameter) for parameter in model.parameters()}

    @torch.inference_mode()
    def test_a_file_holds_the_whole_of_it(self, card, conditions, tmp_path: Path) -> None:
        model = built(card)
        native.save(tmp_path / "model.safetensors", model)
        again = native.load(tmp_path / "model.safetensors")
        assert again.card == model.card
        images = model.normalise(batch_for(card))
        expected, found = model.maps(images, conditions), again.maps(images, conditions)
        assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_an_outline_needs_no_memory(self, card, conditions) -> None:
        assert {value.device.type for value in build_outline(card).parameters()} == {"meta"}

    @pytest.mark.parametrize("change", ["one axis more", "one channel more"])
    def test_images_of_another_kind_are_refused(self, card, conditions, change: str) -> None:
        images = batch_for(card)
        one_channel_more = torch.cat([images, images[:, :1]], dim=1)
        wrong = images[..., None] if change == "one axis more" else one_channel_more
        with pytest.raises(ImageError, match=rf"{card.dimensions}D images with the channels"):
            built(card).normalise(wrong)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (NO_CONDITIONS, "needs a modality for each of 2 images, one of CT, MR; got none"),
        (Conditions(("CT",), ("head", "head")), "a modality for each of 2 images.*got CT"),
        (Conditions(("CT", "PET"), ("head", "head")), "one of CT, MR; got CT, PET"),
        (Conditions(("CT", "CT"), ("head", "knee")), "one of head, brain; got head, knee"),
    ],
)
def test_conditions_that_the_card_does_not_list_are_refused(conditions, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        built(volume_card()).maps(batch_for(volume_card()), conditions)


def test_a_family_without_such_inputs_takes_none() -> None:
    with pytest.raises(SettingsError, match="takes no modality; got CT, CT"):
        built(tiny_card()).maps(batch_for(tiny_card()), Conditions(("CT", "CT"), ()))


@torch.inference_mode()
def test_a_task_answers_with_its_own_classes_alone() -> None:
    card = volume_card()
    model = built(card)
    maps = model.maps(model.normalise(batch_for(card)), ONE_OF_EACH)["semantic"]
    given = torch.isfinite(maps).flatten(2).all(-1)
    assert given.tolist() == [[True, True, True, False, False], [True, False, True, True, True]]
    assert model.channels_of("brain") == (3, 4, 2)


def test_values_are_normalised_channel_by_channel() -> None:
    wanted = Normalisation(mean=(0.0, 100.0), std=(1.0, -50.0), values="measured")
    model = TinyVolumeFamily(volume_card(2, normalisation=wanted))
    values = torch.tensor([3.0, 50.0]).view(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 4)
    assert model.normalise(values)[0, :, 0, 0, 0].tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"tasks": (TaskEntry(name="x", classes=("bone",), dimensions=2, channels=("a", "b")),)},
            "task 'x': normalisation of 1 channels, but the channels are a, b",
        ),
        ({"tasks": (TaskEntry(name="x", classes=("bone",)),) * 2}, "two tasks of one name"),
        ({"dimensions": 3, "slice_spacing_um": None}, "slice_spacing_um goes with dimensions = 3"),
        ({"dimensions": 2, "slice_spacing_um": 3.0}, "slice_spacing_um goes with dimensions = 3"),
        ({"channels": ("a", "b")}, "normalisation of 1 channels, but the channels are a, b"),
        ({"tasks": (TaskEntry(name="x", classes=("hair",)),)}, r"unknown classes \['hair'\]"),
        (
            {"tasks": (TaskEntry(name="x", classes=("bone",), modalities=("PET",)),)},
            r"unknown modalities \['PET'\]",
        ),
        ({"normalisation": {"mean": (0,), "std": (0,)}}, "a standard deviation of 0"),
        ({"normalisation": {"mean": (0,), "std": (1, 1)}}, "1 means but 2 standard deviations"),
    ],
)
def test_cards_that_contradict_themselves(changed: dict, message: str) -> None:
    values = volume_card().model_dump() | {
        name: [entry.model_dump() for entry in value] if name == "tasks" else value
        for name, value in changed.items()
    }
    with pytest.raises(SettingsError, match=message):
        ModelCard.from_mapping(values)


def test_spacing_is_known_along_each_axis() -> None:
    assert volume_card().spacing_um == (3000.0, 500.0, 500.0)
    assert tiny_card().spacing_um == (tiny_card().pixel_size_um,) * 2


def test_what_needs_regions_and_objects_refuses_another_kind_of_model(tmp_path: Path) -> None:
    path = tmp_path / "volumes.safetensors"
    native.save(path, built(volume_card()))
    with pytest.raises(CheckpointError, match="gives 3D maps of semantic, not regions and objects"):
        load_model(path)


def test_a_task_says_what_its_own_images_are() -> None:
    own = Normalisation(mean=(128.0,) * 3, std=(64.0,) * 3)
    photos = TaskEntry(
        name="skin",
        classes=("tumour",),
        channels=("red", "green", "blue"),
        dimensions=2,
        pixel_size_um=10.0,
        normalisation=own,
    )
    card = meduniseg_card(tasks=(*meduniseg_card().tasks, photos))
    assert card.for_task("skin").spacing_um == (10.0, 10.0)
    assert card.for_task("head").spacing_um == card.spacing_um == (3000.0, 500.0, 500.0)
    model = built(card)
    photo, volume = torch.full((1, 3, 64, 64), 192.0), torch.full((1, 1, 8, 64, 64), 240.0)
    assert model.normalise(photo, ("skin",)).unique().tolist() == [1.0]
    assert model.normalise(volume, ("head",)).unique().tolist() == [1.0]
    with pytest.raises(ImageError, match="2D images with the channels red, green, blue"):
        model.normalise(volume, ("skin",))
