"""Build networks with more or fewer classes than their base; existing classes keep their weights.

Each channel of a decoder has a mask token and a small MLP. Existing classes keep both. A new class
gets an MLP that starts as a copy of that of its source channel.

Tokens attend to each other (and pixels to tokens), so another token in the two-way transformer
would change every channel. The transformer therefore sees only the tokens it was trained with,
including those of merged classes (`GrownTransformer`). A new class's token is the output for its
source channel plus a learned vector that starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.base import CosegModel
from napari_coseg.models.registry import build_two_task

Origins = tuple[tuple[int, ...], ...]
"""For each class, the ids of its base classes: none for a new class, several for a merged one.

A merged class starts with the weights of the first.
"""
DECODERS = ("semantic_decoder", "instance_decoder")
BINARY, BACKGROUND, OBJECT = "binary", "background", "object"
NEW_REGION_PART, NEW_TYPE_PART = 0.5, 0.5
"""A new class starts with this fraction of the background logit: it never wins over a confident
existing class, but is close where it has to be learned."""
BESIDE_ONE_REGION = 0.9
"""Fraction of that class's logit, if background has no channel (Co-Seg with one region class)."""


class Source(NamedTuple):
    """Source of the weights of a channel.

    channel  the base's channel of that name
    part     factor on the last layer of its MLP, for a new class; None for an existing channel
    """

    channel: str
    part: float | None = None


class GrowthPlan(NamedTuple):
    """Channels of a decoder: names in the base, and the source of each new channel by name."""

    before: list[str]
    after: dict[str, Source]


def grow(
    base: CosegModel,
    card: ModelCard,
    semantic_origins: Origins,
    instance_origins: Origins,
    building: Callable[[ModelCard], CosegModel] = build_two_task,
) -> CosegModel:
    """Build a network for the classes of `card` with the weights of `base`, which is unchanged.

    Existing classes keep the maps of `base`. Exception: a new region class of a Co-Seg changes the
    mask that prompts the objects slightly.

    Parameters
    ----------
    card
        The grown network's; its `config` is taken from the base.
    semantic_origins, instance_origins
        One entry per class of `card`.
    building
        Makes the empty network; its weights are overwritten.

    Raises
    ------
    CheckpointError
        If the origins do not fit the classes, or the family is not supported.
    """
    _check(card.semantic_classes, semantic_origins, base.card.semantic_classes)
    _check(card.instance_classes, instance_origins, base.card.instance_classes)
    if card.family not in LAYOUTS:
        raise CheckpointError(f"classes cannot be added to models of the family {card.family!r}")
    layout = LAYOUTS[card.family]
    card = card.model_copy(update={"config": _config(base, card, layout)})
    grown = building(card).to(next(base.buffers()).device)
    sources = _sources(base.card, card, semantic_origins, instance_origins)
    state = base.state_dict()
    before, after = layout(base.card), layout(card)
    for decoder, old, new in zip(DECODERS, before, after, strict=True):
        plan = GrowthPlan(old, {name: sources.get(name, Source(name)) for name in new})
        _grow_decoder(base, grown, decoder, plan, state)
    grown.load_state_dict(state)
    return grown.train(base.training)


class GrownTransformer(TwoWayTransformer):
    """sam2's transformer on its original tokens; new tokens are made from its output.

    Its parameters keep their names.
    """

    from_row: Tensor
    added: Tensor
    merged: Tensor
    attended: Tensor

    @classmethod
    def around(
        cls, inner: TwoWayTransformer, attended: Tensor, from_row: Tensor, added: Tensor
    ) -> Self:
        """Wrap the modules of `inner`.

        Parameters
        ----------
        attended
            (R,), the row of each token of the base in the grown network; rows beyond its tokens
            belong to merged classes.
        from_row
            (1 + K,), the row of the base's token from which each token is read.
        added
            (1 + K, 1), 1 for new tokens, whose learned vector is added.
        """
        grown = cls.__new__(cls)
        grown.__dict__.update(inner.__dict__)
        grown._buffers = dict(inner._buffers)
        grown.register_buffer("attended", attended, persistent=False)
        grown.register_buffer("from_row", from_row, persistent=False)
        grown.register_buffer("added", added, persistent=False)
        return grown

    def keep_merged(self, tokens: Tensor) -> None:
        """(M, C): tokens that are attended to but no longer have a channel."""
        self.register_buffer("merged", tokens, persistent=False)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = point_embedding  # (B, 1 + K, C)
        merged = self.merged.unsqueeze(0).expand(len(tokens), -1, -1)
        known = torch.cat([tokens, merged], dim=1)[:, self.attended]
        queries, pixels = super().forward(image_embedding, image_pe, known)
        return queries[:, self.from_row] + self.added * tokens, pixels


def _grow_decoder(
    base: CosegModel, grown: CosegModel, name: str, plan: GrowthPlan, state: dict[str, Tensor]
) -> None:
    """Write the entries of one decoder to `state` under the grown network's names."""
    row_of = {channel: row for row, channel in enumerate(plan.before)}
    tokens = state[f"{name}.mask_tokens"]
    names = list(plan.after)
    rows = torch.tensor([row_of[source.channel] for source in plan.after.values()])
    new = torch.tensor([source.part is not None for source in plan.after.values()])
    transformer = getattr(grown.get_submodule(name), "transformer", None)
    grown_tokens = tokens[rows.to(tokens.device)].clone()
    kept = {source.channel for source in plan.after.values() if source.part is None}
    merged = [row for row, channel in enumerate(plan.before) if channel not in kept]
    if transformer is not None and (bool(new.any()) or merged):
        grown_tokens[new.to(tokens.device)] = 0
        position = {source.channel: names.index(n) for n, source in _kept(plan)}
        position |= {plan.before[row]: len(names) + i for i, row in enumerate(merged)}
        wrapped = GrownTransformer.around(
            transformer,
            torch.tensor([position[channel] for channel in plan.before], device=tokens.device),
            rows.to(tokens.device),
            new[:, None].to(tokens),
        )
        wrapped.keep_merged(tokens[merged].clone())
        cast(Any, grown.get_submodule(name)).transformer = wrapped
    _grow_mlps(name, plan, row_of, state)
    state[f"{name}.mask_tokens"] = grown_tokens


def _kept(plan: GrowthPlan) -> list[tuple[str, Source]]:
    return [(name, source) for name, source in plan.after.items() if source.part is None]


def _grow_mlps(
    name: str, plan: GrowthPlan, row_of: dict[str, int], state: dict[str, Tensor]
) -> None:
    prefix = f"{name}.token_mlps."
    old = {key: state.pop(key) for key in list(state) if key.startswith(prefix)}
    by_row: dict[int, dict[str, Tensor]] = {}
    for key, value in old.items():
        number, rest = key.removeprefix(prefix).split(".", 1)
        by_row.setdefault(int(number), {})[rest] = value
    for row, source in enumerate(plan.after.values()):
        entries = by_row.get(row_of[source.channel], {})  # the spare token has none
        last = max((rest.rsplit(".", 1)[0] for rest in entries), default="")
        for rest, value in entries.items():
            scaled = source.part is not None and rest.rsplit(".", 1)[0] == last
            part = source.part if scaled and source.part is not None else 1.0
            state[f"{prefix}{row}.{rest}"] = value * part


def _sources(
    before: ModelCard, after: ModelCard, semantic: Origins, instance: Origins
) -> dict[str, Source]:
    """Sources of the channels whose name or meaning changes."""
    sources = {}
    for entry, origin in zip(after.semantic_classes, semantic, strict=True):
        parted = Source(BACKGROUND, NEW_REGION_PART)
        if before.family == "coseg" and len(before.semantic_classes) < 2:
            parted = Source(_region(1), BESIDE_ONE_REGION)
        sources[_region(entry.id)] = Source(_region(origin[0])) if origin else parted
    if before.family == "coseg" and len(before.semantic_classes) < 2:
        sources[BACKGROUND] = Source(_region(1), 0.0)  # unchanged: its logit is 0 everywhere
    typed = bool(before.instance_classes)
    for entry, origin in zip(after.instance_classes, instance, strict=True):
        parted = Source(_type(0), NEW_TYPE_PART) if typed else Source(OBJECT, NEW_TYPE_PART)
        sources[_type(entry.id)] = Source(_type(origin[0])) if origin else parted
    if not typed:
        sources[_type(0)] = Source(OBJECT, -NEW_TYPE_PART)
    return sources


def _plus_layout(card: ModelCard) -> tuple[list[str], list[str]]:
    """Channels of Co-Seg++'s decoders, in order; unused ones of imports are last."""
    semantic = [BINARY, BACKGROUND, *(_region(entry.id) for entry in card.semantic_classes)]
    types = [_type(0), *(_type(entry.id) for entry in card.instance_classes)]
    instance = [BINARY, OBJECT, *(types if card.instance_classes else ()), "x", "y"]
    given = card.config.get("semantic_channels"), card.config.get("instance_channels")
    return _filled(semantic, given[0]), _filled(instance, given[1])


def _filled(channels: list[str], given: int | None) -> list[str]:
    unused = 0 if given is None else 1 + given - len(channels)
    return [*channels, *(f"unused {i}" for i in range(unused))]


def _coseg_layout(card: ModelCard) -> tuple[list[str], list[str]]:
    """Channels of Co-Seg's heads; a single region class has no background channel."""
    regions = [_region(entry.id) for entry in card.semantic_classes]
    semantic = [BACKGROUND, *regions] if len(regions) > 1 else [_region(1)]
    types = [_type(0), *(_type(entry.id) for entry in card.instance_classes)]
    instance = ["x", "y", OBJECT, *(types if card.instance_classes else ())]
    spare = ["spare"] * bool(card.config.get("spare_token", False))
    return [*semantic, *spare], [*instance, *spare]


LAYOUTS: dict[str, Callable[[ModelCard], tuple[list[str], list[str]]]] = {
    "coseg-plus": _plus_layout,
    "coseg": _coseg_layout,
}
"""Names of the channels of the semantic and of the instance decoder, by family."""


def _config(base: CosegModel, card: ModelCard, layout: Callable[..., Any]) -> dict[str, Any]:
    """The base's config; fixed numbers of channels keep the unused ones."""
    config = dict(base.card.config)
    bare = {"semantic_channels": None, "instance_channels": None}
    for key, old, fresh, new in zip(
        bare,
        layout(base.card),
        layout(base.card.model_copy(update={"config": config | bare})),
        layout(card.model_copy(update={"config": config | bare})),
        strict=True,
    ):
        if config.get(key) is not None:
            config[key] = len(new) - 1 + len(old) - len(fresh)
    return config


def _check(classes: Sequence[ClassEntry], origins: Origins, known: Sequence[ClassEntry]) -> None:
    ids = {entry.id for entry in known}
    firsts = [origin[0] for origin in origins if origin]
    unknown = sorted({i for origin in origins for i in origin} - ids)
    if len(classes) != len(origins) or unknown or len(set(firsts)) < len(firsts):
        raise CheckpointError(
            f"{len(classes)} classes cannot come from {origins} of a model with the classes "
            f"{sorted(ids)}: one origin per class is needed, and no class may be the source of two"
        )


def _region(number: int) -> str:
    return f"region {number}"


def _type(number: int) -> str:
    return f"type {number}"
