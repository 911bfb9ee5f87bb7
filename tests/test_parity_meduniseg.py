"""MedUniSeg gives the pinned outputs: those of UniSeg's network, and of the paper's equations.

The twin that needs no pinned file compares with `dynamic-network-architectures`, where that is
installed, and with a few numbers written here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases.pinned_outputs import pinned_root, value_by_rule
from cases.tiny_meduniseg import TINY, meduniseg_card, tiny_meduniseg
from napari_coseg.core.card import ClassEntry, ModelCard, Normalisation, OutputMap, TaskEntry
from napari_coseg.core.errors import CheckpointError
from napari_coseg.inference.network import TaskNetwork
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.inference.windows import sliding_windows
from napari_coseg.models.base import NO_CONDITIONS, Conditions
from napari_coseg.models.checkpoints.from_uniseg import AS_UNISEG, import_checkpoint, rename
from napari_coseg.models.checkpoints.released import import_released
from napari_coseg.models.meduniseg.model import MedUniSeg
from napari_coseg.models.meduniseg.relearning import merged, with_lora
from napari_coseg.models.meduniseg.transfer import transferred
from napari_coseg.models.outline import build_outline
from napari_coseg.training.task_losses import deep_supervision_loss

MODALITIES = (
    "CT",
    "MRI",
    "CT&PET",
    "dermoscopy",
    "fundus",
    "pathology",
    "US",
    "X-ray",
    "endoscopy",
)
CLASSES = (3, 3, 3, 3, 2, 2, 2, 2, 2, 4, 2, 2, 3, 2, 3, 3, 3)
"""Of the 17 tasks, with the background."""
PAPER_TASKS = tuple(
    TaskEntry(name=f"task {n}", classes=("a", "b", "c")[: count - 1])
    for n, count in enumerate(CLASSES)
)


def paper_card(channels: int = 3, **changed: Any) -> ModelCard:
    values: dict[str, Any] = {
        "name": "MedUniSeg",
        "family": "meduniseg",
        "config": {},
        "channels": tuple(f"c{n}" for n in range(channels)),
        "dimensions": 3,
        "modalities": MODALITIES,
        "tasks": PAPER_TASKS,
        "semantic_classes": tuple(
            ClassEntry(id=n, name=name, color=(0, 0, 0)) for n, name in enumerate("abc", start=1)
        ),
        "maps": (OutputMap(name="semantic", channels=4, activation="softmax"),),
        "pixel_size_um": 1.0,
        "slice_spacing_um": 1.0,
        "normalisation": Normalisation(mean=(0,) * channels, std=(1,) * channels),
    }
    return ModelCard(**values | changed)


def parity_root() -> Path:
    return pinned_root("NAPARI_COSEG_PARITY_MEDUNISEG", "parity-meduniseg", "meduniseg_outputs.npz")


def seeded(shape: tuple[int, ...], seed: int = 20251121) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def keys_of(name: str) -> list[tuple[str, tuple[int, ...]]]:
    keys = json.loads((parity_root() / f"{name}_keys.json").read_text())["keys"]
    return [(key, tuple(shape)) for key, shape in keys]


# The pinned names of what UniSeg does not have.
NEW_NAMES = (
    ("modal_prompts", "modal.prompts"),
    ("mmap.", "modal.linear."),
    ("tu_residual", "tu"),
    ("seg_outputs_residual", "seg_outputs"),
    (".lora_A.", ".change.down."),
    (".lora_B.", ".change.up."),
)


def our_name(pinned: str) -> str:
    name = pinned
    for old, new in NEW_NAMES:
        name = name.replace(old, new)
    name = rename(name)
    return name.replace(".weight", ".change.weight") if "_residual" in pinned else name


def state_by_rule(*files: str) -> dict[str, Tensor]:
    state = {our_name(k): value_by_rule(k, s) for file in files for k, s in keys_of(file)}
    return state | {"prior.prompt": state["prior.prompt"][0]}


def filled(card: ModelCard, *files: str) -> MedUniSeg:
    model = MedUniSeg(card).eval()
    model.load_state_dict(state_by_rule(*files))
    return model


@cache
def paper_network(channels: int = 3, **config: Any) -> MedUniSeg:
    return filled(paper_card(channels, config=config), "meduniseg")


@torch.no_grad()
def outputs(
    model: MedUniSeg, images: Tensor, conditions: Conditions = NO_CONDITIONS
) -> dict[str, Tensor]:
    """All that is pinned of one run, at full resolution."""
    found: dict[str, Tensor] = {}
    handles = []

    def kept(name: str) -> Callable[..., None]:
        def keep(module: object, inputs: object, output: Tensor) -> None:
            found[name] = output.detach().clone()

        return keep

    for number, stage in enumerate(model.decoder):
        handles.append(stage.blocks[-1].register_forward_hook(kept(f"dec{number}")))
        handles.append(stage.up.register_forward_hook(kept(f"up{number}")))
    if model.prior is not None:
        handles.append(model.prior.register_forward_hook(kept("prior")))
        handles.append(model.prior.blocks[-1].register_forward_hook(kept("priors")))
    for number, enc in enumerate(model.encoder.stages):
        handles.append(enc[-1].register_forward_hook(kept(f"enc{number}")))
    if model.modal is not None:
        handles.append(model.modal.register_forward_hook(kept("mmap")))
    for number, logits in enumerate(model(images, conditions)):
        found[f"logits{number}"] = logits
    for handle in handles:
        handle.remove()
    return found


def of(modality: int, task: int) -> Conditions:
    return Conditions((MODALITIES[modality],), (PAPER_TASKS[task].name,))


PLANE, VOLUME = (1, 3, 1, 64, 96), (32, 64, 96)


def planes_batch() -> dict[str, Tensor]:
    names = Conditions((MODALITIES[5], MODALITIES[8]), (PAPER_TASKS[13].name, PAPER_TASKS[16].name))
    return outputs(paper_network(), torch.cat([seeded(PLANE), seeded(PLANE, 7)]), names)


def star() -> dict[str, Tensor]:
    card = paper_card(config={"lora_rank": 32, "lora_alpha": 64})
    model = filled(card, "meduniseg", "meduniseg_star")
    return outputs(model, seeded(PLANE), of(7, 15))


def moved() -> dict[str, Tensor]:
    card = paper_card(
        modalities=MODALITIES[5:6],
        tasks=(),
        semantic_classes=(ClassEntry(id=1, name="a", color=(0, 0, 0)),),
    )
    model = transferred(paper_network(), card)
    for number, stage in enumerate(model.decoder):
        shape = (2, *stage.head.weight.shape[1:])
        stage.head.weight.data = value_by_rule(f"seg_outputs.{number}.weight", shape)
    return outputs(model, seeded(PLANE), Conditions((MODALITIES[5],), ()))


def modal_maps() -> dict[str, Tensor]:
    modal = paper_network().modal
    assert modal is not None
    numbers = torch.arange(len(MODALITIES))
    return {
        "vectors": modal.linear(modal.prompts).detach(),
        "2d": modal(numbers, torch.Size((1, 64, 96))).detach(),
        "3d": modal(numbers, torch.Size(VOLUME)).detach(),
    }


@cache
def uniseg() -> MedUniSeg:
    theirs = {name: value_by_rule(name, shape) for name, shape in keys_of("uniseg")}
    model = import_released(theirs).model
    assert isinstance(model, MedUniSeg)
    return model


def by_uniseg(channels: int, task: int) -> dict[str, Tensor]:
    conditions = Conditions((), (AS_UNISEG.tasks[task].name,))
    return outputs(uniseg(), seeded((1, channels, *VOLUME)), conditions)


def tasks_of_uniseg(*numbers: int) -> dict[str, Tensor]:
    """Several tasks in one mixed batch."""
    images = seeded((1, 1, *VOLUME)).expand(len(numbers), -1, -1, -1, -1)
    with torch.no_grad():
        names = tuple(AS_UNISEG.tasks[n].name for n in numbers)
        return {"logits0": uniseg()(images, Conditions((), names))[0]}


CASES: dict[str, tuple[str, Callable[[], dict[str, Tensor]]]] = {
    "c1": ("uniseg", lambda: by_uniseg(1, 7)),
    "c2": ("uniseg", lambda: by_uniseg(2, 10)),
    "c4": ("uniseg", lambda: by_uniseg(4, 9)),
    "tasks": ("uniseg", lambda: tasks_of_uniseg(*range(11))),
    "mmap": ("meduniseg", modal_maps),
    "d2": ("meduniseg", lambda: outputs(paper_network(), seeded(PLANE), of(5, 13))),
    "d2first": (
        "meduniseg",
        lambda: outputs(paper_network(single_plane="first"), seeded(PLANE), of(5, 13)),
    ),
    "d2batch": ("meduniseg", planes_batch),
    "d3": ("meduniseg", lambda: outputs(paper_network(), seeded((1, 1, *VOLUME)), of(0, 7))),
    "d3c2": ("meduniseg", lambda: outputs(paper_network(), seeded((1, 2, *VOLUME)), of(2, 10))),
    "d3c4": ("meduniseg", lambda: outputs(paper_network(), seeded((1, 4, *VOLUME)), of(1, 9))),
    "star": ("meduniseg", star),
    "transfer": ("meduniseg", moved),
    "full": (
        "meduniseg",
        lambda: outputs(paper_network(), seeded((1, 1, 64, 192, 192)), of(0, 7)),
    ),
}
WHY_OPT_IN = "takes minutes on a CPU; NAPARI_COSEG_PARITY_FULL=1 runs it"
OPT_IN = {"full": WHY_OPT_IN, "tasks": WHY_OPT_IN + "; two of the tasks always run"}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_pinned_outputs(case: str) -> None:
    """Every array of a case; strides follow from the shapes."""
    if case in OPT_IN and not os.environ.get("NAPARI_COSEG_PARITY_FULL"):
        pytest.skip(OPT_IN[case])
    file, run = CASES[case]
    with np.load(parity_root() / f"{file}_outputs.npz") as pinned:
        expected = {n: pinned[n] for n in pinned.files if n.startswith(f"{case}_")}
    found = run()
    assert expected
    apart = {}
    for name, wanted in expected.items():
        got = found[name.removeprefix(f"{case}_")].numpy()
        steps = [n // m for n, m in zip(got.shape, wanted.shape, strict=True)]
        got = got[tuple(slice(None, None, step) for step in steps)]
        assert got.shape == wanted.shape, name
        apart[name] = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    assert {name: value for name, value in apart.items() if not value < 1e-4} == {}


@pytest.mark.data
@pytest.mark.slow
def test_a_mixed_batch_has_the_pinned_outputs_of_its_tasks() -> None:
    numbers = (0, 10)
    with np.load(parity_root() / "uniseg_outputs.npz") as pinned:
        wanted = pinned["tasks_logits0"][list(numbers)]
    got = tasks_of_uniseg(*numbers)["logits0"][..., ::16, ::16, ::16].numpy()
    assert np.linalg.norm(got - wanted) < 1e-4 * np.linalg.norm(wanted)


@pytest.mark.data
@pytest.mark.parametrize(
    ("files", "card"),
    [
        (("uniseg",), None),
        (("meduniseg",), paper_card()),
        (("meduniseg", "meduniseg_star"), paper_card(config={"lora_rank": 32})),
    ],
    ids=["uniseg", "meduniseg", "meduniseg star"],
)
def test_every_pinned_entry_has_its_place(files: tuple[str, ...], card: ModelCard | None) -> None:
    names = [our_name(key) for file in files for key, _ in keys_of(file)]
    assert len(set(names)) == len(names)
    if card is not None:
        assert set(names) == set(build_outline(card).state_dict())


ONE_STEM = {"stems": (3,), "task_prior": False}
TWO_CLASSES: dict[str, Any] = {
    "tasks": (),
    "semantic_classes": (ClassEntry(id=1, name="a", color=(0, 0, 0)),),
}


@pytest.mark.parametrize(
    ("changed", "parameters"),
    [
        ({}, 32_804_563),
        ({"config": {"lora_rank": 32}}, 32_804_563 + 6_210_656),
        ({"config": ONE_STEM, "modalities": (), **TWO_CLASSES}, 31_168_160),
        ({"config": ONE_STEM, "modalities": ("CT",), **TWO_CLASSES}, 31_242_544),
    ],
    ids=["the paper's network", "re-learning", "backbone", "transfer"],
)
def test_parameter_counts(changed: dict[str, Any], parameters: int) -> None:
    model = build_outline(paper_card(**changed))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for part in model.parts().values() for p in part) == parameters


# ---------------------------------------------------------------------------------------------
# Twins that need no pinned file


def small_backbone() -> MedUniSeg:
    card = meduniseg_card(config={"task_prior": False, "stems": (1,)}, modalities=(), **TWO_CLASSES)
    return tiny_meduniseg(card)


@pytest.mark.parametrize("sides", [(1, 64, 96), (16, 64, 96)], ids=["plane", "volume"])
@torch.no_grad()
def test_the_backbone_is_that_of_an_independent_package(sides: tuple[int, int, int]) -> None:
    """Its planes lack the mean over depth, so only their features are compared."""
    pytest.importorskip("dynamic_network_architectures")
    from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
    from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder

    ours, widths = small_backbone(), TINY["widths"]
    encoder = PlainConvEncoder(
        1,
        len(widths),
        list(widths),
        torch.nn.Conv3d,
        [[1, 3, 3]] + [[3, 3, 3]] * 4,
        [[1, 1, 1], [1, 2, 2]] + [[2, 2, 2]] * 3,
        2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01},
        return_skips=True,
    )
    encoder.kernel_sizes[0] = [3, 3, 3]
    decoder = UNetDecoder(encoder, 2, 2, deep_supervision=True)
    theirs = [b for stage in encoder.stages for b in stage[0].convs]
    mine = [b for stage in ours.encoder.stages for b in stage]
    for up, seg, stage in zip(decoder.transpconvs, decoder.seg_layers, ours.decoder, strict=True):
        up.weight.copy_(stage.up.weight)
        seg.weight.copy_(stage.head.weight)
        up.bias.zero_()
        seg.bias.zero_()
    theirs += [b for stage in decoder.stages for b in stage.convs]
    mine += [b for stage in ours.decoder for b in stage.blocks]
    for block, own in zip(theirs, mine, strict=True):
        conv = own.convolutions["1"] if hasattr(own, "convolutions") else own.conv
        block.conv.load_state_dict(conv.state_dict())
        block.norm.load_state_dict(own.norm.state_dict())
    images = seeded((1, 1, *sides))
    expected = encoder(images)
    got = ours.encode(images, NO_CONDITIONS)
    if sides[0] > 1:
        expected, got = [*expected, *decoder(expected)], [*got, *ours(images)]
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def as_uniseg_names(model: MedUniSeg) -> dict[str, Tensor]:
    """A small UniSeg's entries, as that code names them."""
    state = {}
    for name, value in model.state_dict().items():
        part, *rest = name.split(".")
        tail = ".".join(rest).replace("norm.", "instnorm.")
        if part == "encoder":
            _, stage, block, *end = tail.split(".")
            last = int(stage) == len(TINY["widths"]) - 1
            where = f"{stage}.{block}.blocks.0" if last else f"{stage}.blocks.{block}"
            leaf = ".".join(end).replace("convolutions.", "conv_")
            state[f"conv_blocks_context.{where}.{leaf}"] = value
        elif part == "decoder":
            up, kind, *end = tail.split(".")
            if kind == "blocks":
                leaf = ".".join(end[1:])
                state[f"conv_blocks_localization.{up}.{end[0]}.blocks.0.{leaf}"] = value
            else:
                state[f"{'tu' if kind == 'up' else 'seg_outputs'}.{up}.{end[0]}"] = value
        elif name == "prior.prompt":
            state["intermedia_prompt"] = value[None]
        else:
            state[f"fusion_layer.{tail}"] = value
    return state


def small_uniseg() -> MedUniSeg:
    config = {"modal_prompt": "none", "stems": (1, 2, 4)}
    return tiny_meduniseg(meduniseg_card(modalities=(), config=config, tasks=BARE_TASKS))


BARE_TASKS = tuple(task.model_copy(update={"modalities": ()}) for task in meduniseg_card().tasks)


@pytest.mark.parametrize("prefix", ["", "module."])
@torch.no_grad()
def test_a_network_under_unisegs_names_comes_back_exactly(prefix: str) -> None:
    model = small_uniseg()
    theirs = {prefix + name: value for name, value in as_uniseg_names(model).items()}
    again = import_checkpoint(theirs, model.card).model
    images, conditions = seeded((1, 2, 8, 64, 64)), Conditions((), ("brain",))
    assert torch.equal(again(images, conditions)[0], model(images, conditions)[0])


def test_a_checkpoint_with_other_tasks_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has 2 tasks, but the card lists 11"):
        import_checkpoint(as_uniseg_names(small_uniseg()))


def test_an_import_says_what_its_licence_is() -> None:
    assert "non-commercial" in AS_UNISEG.licence


@torch.no_grad()
def test_new_changes_change_nothing_and_merged_ones_the_same() -> None:
    model = tiny_meduniseg()
    images, both = seeded((2, 1, 8, 64, 64)), Conditions(("CT", "MR"), ("head", "brain"))
    plain = model(images, both)[0]
    changed = with_lora(model, rank=4, alpha=8)
    assert torch.equal(changed(images, both)[0], plain)
    for parameter in changed.parts()["lora"]:
        parameter.add_(0.05 * seeded(tuple(parameter.shape)))
    moved = changed(images, both)[0]
    assert not torch.allclose(moved, plain, atol=0.1)
    apart = merged(changed)(images, both)[0] - moved
    assert apart.norm() < 1e-5 * moved.norm()


@pytest.mark.data
@pytest.mark.slow
@torch.no_grad()
def test_windows_and_mirrors_give_the_pinned_probabilities() -> None:
    """As UniSeg predicts: zeros around, a step of half a window, Gaussian weights, 8 mirrors.

    All four channels count here, so a task of three classes takes the place of VerSe20.
    """
    with np.load(parity_root() / "uniseg_outputs.npz") as pinned:
        wanted = pinned["windows_softmax"]
    tasks = list(AS_UNISEG.tasks)
    tasks[7] = tasks[7].model_copy(update={"classes": ("liver", "spleen", "prostate")})
    theirs = {name: value_by_rule(name, shape) for name, shape in keys_of("uniseg")}
    card = AS_UNISEG.model_copy(update={"tasks": tuple(tasks)})
    model = import_checkpoint(theirs, card).model
    channels = np.array((0, *model.channels_of("VerSe20")))
    settings = InferenceSettings(test_time_augmentation=True)
    network = TaskNetwork(model, Conditions((), ("VerSe20",)), channels, settings)
    found = sliding_windows(seeded((1, 28, 60, 120), 20251122).numpy(), VOLUME, 4, network.maps)
    got = found[:, ::4, ::4, ::4]
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) < 1e-4 * np.linalg.norm(wanted)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("case", "channels", "task"), [("c1", 1, 7), ("c4", 4, 9)])
@torch.no_grad()
def test_the_loss_is_the_pinned_one(case: str, channels: int, task: int) -> None:
    pinned = json.loads((parity_root() / "uniseg_training_and_windows.json").read_text())[case]
    classes = pinned["classes"]
    generator = torch.Generator().manual_seed(11)
    target = torch.randint(0, classes, (1, 1, *VOLUME), generator=generator)[:, 0]
    target[:, :8] = 0
    conditions = Conditions((), (AS_UNISEG.tasks[task].name,))
    logits = uniseg()(seeded((1, channels, *VOLUME)), conditions)
    loss = deep_supervision_loss(logits, target, classes)
    assert float(loss) == pytest.approx(pinned["loss"], rel=1e-4)
