"""MedUniSeg: sizes, planes, conditions, adapters, transfer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases.tiny_meduniseg import meduniseg_card, tiny_meduniseg
from napari_coseg.core.card import TaskEntry
from napari_coseg.core.errors import ImageError, SettingsError
from napari_coseg.models.base import Conditions
from napari_coseg.models.meduniseg import layers
from napari_coseg.models.meduniseg.relearning import merged, with_lora
from napari_coseg.models.meduniseg.transfer import TRAINED_PARTS, transferred
from napari_coseg.training.trainable import train_only

HEAD = Conditions(("CT",), ("head",))


def images_of(*sides: int, channels: int = 1, count: int = 1) -> Tensor:
    return torch.randn(
        (count, channels, *sides), generator=torch.Generator().manual_seed(sum(sides))
    )


@pytest.mark.parametrize(
    ("sides", "fits"),
    [
        ((1, 32, 32), True),
        ((1, 16, 32), True),
        ((1, 16, 16), False),
        ((8, 16, 16), False),
        ((16, 16, 16), True),
        ((8, 32, 32), True),
        ((4, 32, 32), False),
        ((8, 40, 32), False),
    ],
)
@torch.no_grad()
def test_sides_that_fit_the_strides(sides: tuple[int, int, int], fits: bool) -> None:
    model = tiny_meduniseg()
    if fits:
        assert model(images_of(*sides), HEAD)[0].shape[2:] == sides
    else:
        with pytest.raises(
            ImageError, match=r"multiples of 16 and a depth of 1 or a multiple of 8"
        ):
            model(images_of(*sides), HEAD)


def test_a_number_of_channels_without_a_stem_is_refused() -> None:
    model = tiny_meduniseg(meduniseg_card(config={"stems": (1, 3)}))
    with pytest.raises(ImageError, match="first convolutions for 1, 3 channels; got 2"):
        model(images_of(8, 32, 32, channels=2), HEAD)


def test_a_plane_is_what_the_3d_layers_make_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane is what the 3D layers make of it, with the mean of two planes after upscaling."""
    model = tiny_meduniseg().double()
    image = images_of(1, 32, 64).double()
    with torch.no_grad():
        planes = model(image, HEAD)
        monkeypatch.setattr(layers.Convolution, "forward", in_3d)
        monkeypatch.setattr(layers.Upscaling, "forward", up_in_3d)
        volumes = model(image, HEAD)
    for flat, deep in zip(planes, volumes, strict=True):
        torch.testing.assert_close(flat, deep, atol=1e-10, rtol=1e-10)


def in_3d(self: layers.Convolution, maps: Tensor, adapted: Tensor | None = None) -> Tensor:
    return nn.Conv3d.forward(self, maps)


def up_in_3d(
    self: layers.Upscaling, maps: Tensor, is_plane: bool, adapted: Tensor | None = None
) -> Tensor:
    return F.conv_transpose3d(maps, self.weight, stride=self.stride).mean(2, keepdim=True)


@torch.no_grad()
def test_modality_and_task_are_those_of_each_image() -> None:
    model = tiny_meduniseg()
    image = images_of(8, 32, 32).expand(3, -1, -1, -1, -1)
    ct, mr, brain = model(image, Conditions(("CT", "MR", "CT"), ("head", "head", "brain")))[0]
    assert not torch.allclose(ct, mr, atol=1e-3)
    assert not torch.allclose(ct, brain, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "changes"),
    [({"modal_prompt": "none"}, False), ({"modal_prompt": "bottleneck"}, True)],
)
@torch.no_grad()
def test_ablations_of_the_modal_prompt(config: dict, changes: bool) -> None:
    model = tiny_meduniseg(meduniseg_card(config=config))
    image = images_of(8, 32, 32).expand(2, -1, -1, -1, -1)
    one, two = model(image, Conditions(("CT", "MR"), ("head", "head")))[0]
    assert torch.allclose(one, two, atol=1e-4) is not changes


def test_unused_channels_get_no_gradient() -> None:
    model = tiny_meduniseg().train()
    found = model.maps(images_of(8, 32, 32), HEAD)["semantic"]
    found.log_softmax(1)[:, [0, *model.channels_of("head")]].sum().backward()
    gradient = model.decoder[-1].head.weight.grad.flatten(1).abs().sum(1)
    assert (gradient > 0).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": ()}, "lists no tasks, but its config has task_prior"),
        ({"config": {"head_channels": 2}}, "4 classes with the background, but head_channels is 2"),
        ({"config": {"adapted_tasks": ("hip",)}}, "adapted_tasks names hip; its tasks are head"),
        ({"config": {"modal_grid_2d": (4, 5)}}, "must hold the same number of values"),
        ({"config": {"width": 8}}, "did you mean 'widths'"),
    ],
)
def test_cards_that_describe_no_network(changed: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tiny_meduniseg(meduniseg_card(**changed))


# ---------------------------------------------------------------------------------------------
# MedUniSeg*


def moved(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parts()["lora"]:
            parameter.add_(0.05 * torch.randn_like(parameter))


@torch.no_grad()
def test_changes_serve_their_tasks_alone() -> None:
    model = tiny_meduniseg()
    images = images_of(8, 32, 32, count=2)
    both = Conditions(("CT", "MR"), ("head", "brain"))
    plain = model(images, both)[0]
    changed = with_lora(model, rank=4, tasks=("brain",))
    moved(changed)
    head, brain = changed(images, both)[0]
    assert torch.equal(head, plain[0])
    assert not torch.allclose(brain, plain[1], atol=0.1)
    with pytest.raises(SettingsError, match=r"serve brain alone; merged, .* also change head"):
        merged(changed)


def test_only_the_changes_train() -> None:
    model = with_lora(tiny_meduniseg(), rank=4)
    train_only(model, ("lora",))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names
    assert all(".change." in name for name in names)


def test_changes_are_added_once() -> None:
    with pytest.raises(SettingsError, match="has LoRA already; merge it first"):
        with_lora(with_lora(tiny_meduniseg(), rank=4))


# ---------------------------------------------------------------------------------------------
# Transfer


def target(*modalities: str, channels: int = 1) -> object:
    return meduniseg_card(
        channels, tasks=(TaskEntry(name="hip", classes=("bone",)),), modalities=modalities
    )


@torch.no_grad()
def test_a_transfer_keeps_the_encoder_and_the_prompt() -> None:
    source = tiny_meduniseg()
    model = transferred(source, target("MR", "US"))
    image = images_of(8, 32, 32)
    theirs = source.encode(image, Conditions(("MR",), ("brain",)))
    ours = model.encode(image, Conditions(("MR",), ("hip",)))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    upscaling = source.decoder[0].up.weight
    assert torch.equal(model.decoder[0].up.weight, upscaling[:-1])
    assert model(image, Conditions(("US",), ("hip",)))[0].shape[1] == 2


def test_a_transfer_freezes_the_modal_prompt_alone() -> None:
    model = transferred(tiny_meduniseg(), target("MR"))
    train_only(model, TRAINED_PARTS)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"modal.prompts"}


@pytest.mark.parametrize(
    ("modalities", "message"),
    [(("US",), "knows the modalities CT, MR, and none of US")],
)
def test_a_transfer_needs_a_prompt(modalities: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        transferred(tiny_meduniseg(), target(*modalities))
