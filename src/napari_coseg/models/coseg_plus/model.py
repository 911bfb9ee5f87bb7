"""Co-Seg++ (section 3.1): one encoding, two forwards, each task prompted by the other's mask.

    first forward                          second forward
      semantic decoder(z) -> m_sem           semantic decoder(z + SSP_ins(m_ins, z)) -> regions
      instance decoder(z) -> m_ins           instance decoder(z + SSP_sem(m_sem, z)) -> objects

The released code encodes the image once per forward and loops over the batch; here z is computed
once, and every step takes the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.base import (
    BOTH_TASKS,
    CosegModel,
    Features,
    FirstForward,
    MaskPrompts,
    Task,
    TaskMaps,
    nothing_said,
)
from napari_coseg.models.coseg_plus.config import CosegPlusConfig
from napari_coseg.models.coseg_plus.mtc_decoder import MTCDecoder
from napari_coseg.models.coseg_plus.ssp_encoder import SSPEncoder
from napari_coseg.models.nn.encoders.base import Encoder
from napari_coseg.models.nn.encoders.registry import build_encoder

OBJECT_CHANNELS = 1
HV_CHANNELS = 2


class CosegPlus(CosegModel):
    """The network; `card.config` holds a `CosegPlusConfig`."""

    def __init__(self, card: ModelCard) -> None:
        self.config = config = CosegPlusConfig.from_mapping(card.config)
        # Written in full, since the meaning of a name may change.
        shape = {**card.config, "encoder": config.encoder.model_dump(mode="json")}
        super().__init__(card.model_copy(update={"config": shape}))
        self.encoder = build_encoder(
            config.encoder,
            config.width,
            config.upscaling_channels,
            config.adapter_ratio,
            config.adapter_kernel_size,
        )
        self.size_multiple = self.encoder.size_multiple
        self.semantic_prompt = SSPEncoder(config)
        self.instance_prompt = SSPEncoder(config)
        self.semantic_channels = 1 + len(card.semantic_classes)
        types = len(card.instance_classes)
        self.class_channels = 1 + types if types else 0
        needed = OBJECT_CHANNELS + self.class_channels + HV_CHANNELS
        self.semantic_decoder = MTCDecoder(
            config, _channels("semantic", self.semantic_channels, config.semantic_channels)
        )
        self.instance_decoder = MTCDecoder(
            config, _channels("instance", needed, config.instance_channels)
        )

    @property
    def image_encoder(self) -> Encoder:
        return self.encoder

    def encode(self, images: Tensor) -> Features:
        embedding, high_resolution = self.encoder(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return Features(embedding, high_resolution, size)

    def first_forward(self, features: Features) -> FirstForward:
        z = features.embedding
        # Crossed: each decoder takes the other task's "no mask" vector.
        semantic, semantic_consistency = self._decode_semantic(
            features, self.instance_prompt.no_mask_prompt(z)
        )
        instance, instance_consistency = self._decode_instance(
            features, self.semantic_prompt.no_mask_prompt(z)
        )
        return FirstForward(semantic, instance, semantic_consistency, instance_consistency)

    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Sequence[Task] = BOTH_TASKS
    ) -> TaskMaps:
        semantic, instance = self.second_forward_channels(features, prompts, tasks)
        first_hv = OBJECT_CHANNELS + self.class_channels
        maps = TaskMaps(
            semantic=semantic[:, : self.semantic_channels],
            object=instance[:, :OBJECT_CHANNELS],
            classes=instance[:, OBJECT_CHANNELS:first_hv],
            hv=instance[:, first_hv : first_hv + HV_CHANNELS],
        )
        return maps.resized(features.image_size)

    def second_forward_channels(
        self, features: Features, prompts: MaskPrompts, tasks: Sequence[Task] = BOTH_TASKS
    ) -> tuple[Tensor, Tensor]:
        """The raw channels of both decoders, (B, K, y, x), before naming and resizing."""
        for _ in range(self.config.forwards - 2):
            semantic, _ = self._decode_semantic(features, *self._semantic_prompt(features, prompts))
            instance, _ = self._decode_instance(features, *self._instance_prompt(features, prompts))
            prompts = MaskPrompts(semantic, instance)
        semantic = nothing_said(features, self.semantic_channels)
        instance = nothing_said(features, OBJECT_CHANNELS + self.class_channels + HV_CHANNELS)
        if "semantic" in tasks:
            prompt, mask = self._semantic_prompt(features, prompts)
            semantic, _ = self._decode_semantic(features, prompt, mask, binary=False)
        if "instance" in tasks:
            prompt, mask = self._instance_prompt(features, prompts)
            instance, _ = self._decode_instance(features, prompt, mask, binary=False)
        return semantic, instance

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part; every parameter is in exactly one.

        ``trunk`` is what the paper freezes (section 3.4).
        """
        return {
            **self.encoder.parts(),
            "prompt_encoders": [
                *self.semantic_prompt.parameters(),
                *self.instance_prompt.parameters(),
            ],
            "decoders": [
                *self.semantic_decoder.parameters(),
                *self.instance_decoder.parameters(),
            ],
        }

    def _semantic_prompt(
        self, features: Features, prompts: MaskPrompts
    ) -> tuple[Tensor, Tensor | None]:
        """Prompt of the semantic decoder and its mask, if any.

        From the objects' mask (equation 6), unless ablated.
        """
        if self.config.forwards == 1:
            return self.instance_prompt.no_mask_prompt(features.embedding), None
        if not self.config.crossed:
            return self.semantic_prompt(prompts.semantic, features.embedding), prompts.semantic
        return self.instance_prompt(prompts.instance, features.embedding), prompts.instance

    def _instance_prompt(
        self, features: Features, prompts: MaskPrompts
    ) -> tuple[Tensor, Tensor | None]:
        """Prompt of the instance decoder and its mask: the regions' mask, unless ablated."""
        if self.config.forwards == 1:
            return self.semantic_prompt.no_mask_prompt(features.embedding), None
        if not self.config.crossed:
            return self.instance_prompt(prompts.instance, features.embedding), prompts.instance
        return self.semantic_prompt(prompts.semantic, features.embedding), prompts.semantic

    def _decode_semantic(
        self, features: Features, prompt: Tensor, mask: Tensor | None = None, binary: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        position = self.instance_prompt.image_position(features.embedding)
        return self.semantic_decoder(
            features.embedding, prompt, position, features.high_resolution, binary, mask
        )

    def _decode_instance(
        self, features: Features, prompt: Tensor, mask: Tensor | None = None, binary: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        position = self.semantic_prompt.image_position(features.embedding)
        return self.instance_decoder(
            features.embedding, prompt, position, features.high_resolution, binary, mask
        )


def _channels(task: str, needed: int, given: int | None) -> int:
    """Channels of a decoder: as many as the classes need, or more if configured."""
    if given is not None and given < needed:
        raise CheckpointError(
            f"the card's {task} classes need {needed} channels, but its config gives {given}; "
            f"name the classes that the network was trained on"
        )
    return needed if given is None else given
