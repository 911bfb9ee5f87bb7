"""Co-Seg (section 2.4): one encoding, two forwards, each task prompted by the other's mask.

    first forward                            second forward
      semantic head(z) -> regions, m_sem       semantic head(z + RP_ins(m_ins, z)) -> regions
      instance head(z) -> objects, m_ins       instance head(z + RP_sem(m_sem, z)) -> objects

Both forwards decode every channel; the masks are the log-odds of "any region" and "object" at the
size of the image. There is no consistency map. The encoder is frozen except for LoRA in its
attention and adapters beside its MLPs.

Channels of the instance head: horizontal and vertical map, object, and, if the card has object
classes, background and each class (not in the paper). Of the semantic head: one logit for a single
region class, as in the paper, or background and each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_coseg.core.card import ModelCard
from napari_coseg.models.base import (
    BOTH_TASKS,
    CosegModel,
    Features,
    FirstForward,
    MaskPrompts,
    Task,
    TaskMaps,
)
from napari_coseg.models.coseg.config import CosegConfig
from napari_coseg.models.coseg.mp_decoder import MPDecoder
from napari_coseg.models.coseg.rp_encoder import RPEncoder
from napari_coseg.models.nn.encoders.base import Encoder
from napari_coseg.models.nn.encoders.registry import build_encoder
from napari_coseg.models.nn.lora import put_in_lora

HV = slice(0, 2)
OBJECT = slice(2, 3)
CLASSES = slice(3, None)


class Coseg(CosegModel):
    """The network; `card.config` holds a `CosegConfig`."""

    def __init__(self, card: ModelCard) -> None:
        self.config = config = CosegConfig.from_mapping(card.config)
        # Written in full, since the meaning of a name may change.
        shape = {**card.config, "encoder": config.encoder.model_dump(mode="json")}
        super().__init__(card.model_copy(update={"config": shape}))
        self.encoder = build_encoder(
            config.encoder,
            config.width,
            (config.upscaling_channels[0], config.upscaling_channels[1]),
            config.adapter_ratio,
            config.adapter_kernel_size,
        )
        self.lora = nn.ModuleList()
        if config.lora_rank:
            self.lora = put_in_lora(
                self.encoder.attention_layers(), config.lora_rank, config.lora_uneven
            )
        self.size_multiple = self.encoder.size_multiple
        self.semantic_prompt = RPEncoder(config)
        self.instance_prompt = RPEncoder(config)
        semantic, instance = head_channels(card)
        self.semantic_decoder = MPDecoder(config, semantic)
        self.instance_decoder = MPDecoder(config, instance)

    @property
    def image_encoder(self) -> Encoder:
        return self.encoder

    def encode(self, images: Tensor) -> Features:
        embedding, high_resolution = self.encoder(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return Features(embedding, high_resolution, size)

    def first_forward(self, features: Features) -> FirstForward:
        semantic, instance = self.first_forward_channels(features)
        masks = (_any_region(semantic), instance[:, OBJECT])
        semantic_mask, instance_mask = (_resize(mask, features.image_size) for mask in masks)
        return FirstForward(semantic_mask, instance_mask, None, None)

    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Sequence[Task] = BOTH_TASKS
    ) -> TaskMaps:
        semantic, instance = self.second_forward_channels(features, prompts)
        maps = TaskMaps(
            semantic=_with_background(semantic)[:, : 1 + len(self.card.semantic_classes)],
            object=instance[:, OBJECT],
            classes=instance[:, CLASSES],
            hv=instance[:, HV],
        )
        return maps.resized(features.image_size)

    def first_forward_channels(self, features: Features) -> tuple[Tensor, Tensor]:
        """The raw channels of both heads without prompts, (B, K, y, x)."""
        # Crossed: each head takes the other task's "no mask" vector.
        return self._decode(
            features,
            for_semantic=self.instance_prompt.no_mask_prompt(features.embedding),
            for_instance=self.semantic_prompt.no_mask_prompt(features.embedding),
        )

    def second_forward_channels(
        self, features: Features, prompts: MaskPrompts
    ) -> tuple[Tensor, Tensor]:
        """The raw channels of both heads, (B, K, y, x), before naming and resizing."""
        return self._decode(
            features,
            for_semantic=self.instance_prompt(prompts.instance, features.embedding),
            for_instance=self.semantic_prompt(prompts.semantic, features.embedding),
        )

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part; every parameter is in exactly one.

        ``trunk`` is what the paper freezes (section 2.4).
        """
        prompts = [*self.semantic_prompt.parameters(), *self.instance_prompt.parameters()]
        decoders = [*self.semantic_decoder.parameters(), *self.instance_decoder.parameters()]
        return {
            **self.encoder.parts(),
            "lora": list(self.lora.parameters()),
            "prompt_encoders": prompts,
            "decoders": decoders,
        }

    def _decode(
        self, features: Features, for_semantic: Tensor, for_instance: Tensor
    ) -> tuple[Tensor, Tensor]:
        z, fine = features.embedding, features.high_resolution
        semantic = self.semantic_decoder(
            z, for_semantic, self.instance_prompt.image_position(z), fine
        )
        instance = self.instance_decoder(
            z, for_instance, self.semantic_prompt.image_position(z), fine
        )
        return semantic, instance


def head_channels(card: ModelCard) -> tuple[int, int]:
    """Channels of the semantic and the instance head for the card's classes."""
    regions, types = len(card.semantic_classes), len(card.instance_classes)
    return (1 + regions if regions > 1 else 1), OBJECT.stop + (1 + types if types else 0)


def _with_background(semantic: Tensor) -> Tensor:
    """Expand a single logit to two whose softmax is its sigmoid; several are unchanged."""
    if semantic.shape[1] > 1:
        return semantic
    return torch.cat([torch.zeros_like(semantic), semantic], dim=1)


def _any_region(semantic: Tensor) -> Tensor:
    """(B, K, y, x) -> (B, 1, y, x), the log-odds of any region against background."""
    if semantic.shape[1] == 1:
        return semantic
    return semantic[:, 1:].logsumexp(dim=1, keepdim=True) - semantic[:, :1]


def _resize(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
