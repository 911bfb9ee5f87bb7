"""Adapter files and growing heads: what stays, what is refused, what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import CheckpointError
from napari_coseg.inference.loading import load_model, model_origin, switch_adapter
from napari_coseg.models.adapted import parts_of, starting_network
from napari_coseg.models.base import CosegModel, TaskMaps
from napari_coseg.models.checkpoints.adapters import (
    AdapterCard,
    fingerprint,
    read_adapter_card,
    save_adapter,
    with_adapter,
)
from napari_coseg.models.checkpoints.native import file_sha256, load, save
from test_models import COSEG, small_model

SHA = "0" * 64


def classes(*names: str) -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(id=i, name=n, color=(i, i, i)) for i, n in enumerate(names, 1))


def answer(model: CosegModel, seed: int = 3) -> TaskMaps:
    generator = torch.Generator().manual_seed(seed)
    image = 255 * torch.rand(1, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        return model(model.normalise(image)).second


def changed(model: CosegModel, parts: tuple[str, ...], by: float = 0.03) -> CosegModel:
    """The same network with other weights in some parts."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for part in parts:
            for parameter in parts_of(model)[part]:
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model


def start(base: CosegModel, regions: Any = None, types: Any = None, lora: int = 0) -> CosegModel:
    """`regions` and `types` map each new name to the ids that it comes from."""
    regions = regions or {entry.name: (entry.id,) for entry in base.card.semantic_classes}
    types = types or {entry.name: (entry.id,) for entry in base.card.instance_classes}
    card = base.card.model_copy(
        update={"semantic_classes": classes(*regions), "instance_classes": classes(*types)}
    )
    return starting_network(base, card, tuple(regions.values()), tuple(types.values()), lora)


def random_coseg(regions: int, **config: Any) -> CosegModel:
    """Every weight random, those that start at zero too."""
    model = small_model("coseg", COSEG | config, regions, types=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


FAMILIES = {
    "coseg-plus": lambda: tiny_model(tiny_card(("gland", "stroma"), ("round", "long"))),
    "coseg-plus-untyped": lambda: tiny_model(tiny_card(("gland",), ())),
    "coseg-plus-plain": lambda: tiny_model(tiny_card(decoder="plain")),
    "coseg-plus-unused": lambda: tiny_model(tiny_card(instance_channels=9, semantic_channels=4)),
    "coseg": lambda: random_coseg(regions=2),
    "coseg-one-region": lambda: random_coseg(regions=1),
    "coseg-spare-token": lambda: random_coseg(regions=1, spare_token=True),
}
GROWTHS: dict[str, tuple[dict[str, tuple[int, ...]] | None, dict[str, tuple[int, ...]] | None]] = {
    "one region more": ({"gland": (1,), "new": ()}, None),
    "one type more": (None, {"round": (1,), "long": (2,), "new": ()}),
    "both, two each": ({"a": (1,), "n": (), "m": ()}, {"b": (1,), "c": (2,), "o": (), "p": ()}),
    "another order": (None, {"long": (2,), "new": (), "round": (1,)}),
    "merged": (None, {"any": (1, 2)}),
    "merged, and one more": (None, {"new": (), "any": (2, 1)}),
}


def fits(model: CosegModel, growth: Any) -> bool:
    known = (len(model.card.semantic_classes), len(model.card.instance_classes))
    wanted = [max((i for o in (g or {}).values() for i in o), default=0) for g in growth]
    return all(most <= count for most, count in zip(wanted, known, strict=True))


CASES = [
    pytest.param(family, growth, id=f"{family}: {growth}")
    for family, make in FAMILIES.items()
    for growth in GROWTHS
    if fits(make(), GROWTHS[growth])
]


@pytest.mark.parametrize(("family", "growth"), CASES)
def test_old_classes_keep_their_maps_when_heads_grow(family: str, growth: str) -> None:
    base = FAMILIES[family]()
    regions, types = GROWTHS[growth]
    grown = start(base, regions, types)
    before, after = answer(base), answer(grown)
    # Co-Seg's regions together make the mask that prompts its objects.
    prompted = regions is not None and base.card.family == "coseg"
    tasks = [("semantic", regions), ("classes", types)][: 1 if prompted else 2]
    if not prompted:
        torch.testing.assert_close(after.object, before.object)
        torch.testing.assert_close(after.hv, before.hv)
    for task, origins in tasks:
        old, new = getattr(before, task), getattr(after, task)
        pairs = [(0, (0,)), *enumerate((origins or {}).values(), 1)] if origins else []
        assert new.shape[1] == (len(pairs) if origins else old.shape[1])
        for channel, origin in pairs:
            if origin and old.shape[1]:
                torch.testing.assert_close(new[:, channel], old[:, origin[0]])


def test_a_new_class_never_leads_where_an_old_one_is_sure() -> None:
    base = tiny_model()
    before, after = answer(base).classes, answer(start(base, types={"a": (1,), "b": (2,), "n": ()}))
    sure = before[:, 0].abs() > 1e-3
    assert (after.classes.argmax(1) == before.argmax(1))[sure & (before.amax(1) > 0)].all()


def test_growing_takes_nothing_from_the_base() -> None:
    base = tiny_model()
    was = fingerprint(base.state_dict(), base.state_dict())
    changed(start(base, {"gland": (1,), "new": ()}), ("decoders", "adapters"), by=1)
    assert fingerprint(base.state_dict(), base.state_dict()) == was


@pytest.mark.parametrize(
    ("origins", "told"),
    [
        pytest.param(((1,),), "2 classes", id="an origin is missing"),
        pytest.param(((1,), (9,)), "cannot come from", id="of a class that is not there"),
        pytest.param(((1,), (1,)), "no class may be the source of two", id="one class becomes two"),
    ],
)
def test_origins_that_do_not_fit(origins: Any, told: str) -> None:
    base = tiny_model()
    card = base.card.model_copy(update={"instance_classes": classes("a", "b")})
    with pytest.raises(CheckpointError, match=told):
        starting_network(base, card, ((1,),), origins)


# ---------------------------------------------------------------------------------------------
# Files


def saved_base(folder: Path, card: ModelCard | None = None) -> Path:
    path = folder / "base.safetensors"
    save(path, tiny_model(card))
    return path


def card_for(model: CosegModel, sha: str, **more: Any) -> AdapterCard:
    kept = tuple((e.id,) for e in model.card.semantic_classes)
    values = {"semantic_origins": kept, "instance_origins": ((1,), (2,)), "parts": ("decoders",)}
    card = AdapterCard(name="mine", base_name="tiny", base_sha256=sha, model=model.card, **values)
    return card.model_copy(update=more)


ROUND_TRIPS = {
    "decoders": ({}, ("decoders",)),
    "all": ({}, ("adapters", "neck", "prompt_encoders", "decoders")),
    "lora": ({"lora": 2}, ("lora",)),
    "a new region": ({"regions": {"gland": (1,), "new": ()}}, ("decoders",)),
    "merged types": ({"types": {"any": (1, 2)}}, ("decoders", "adapters")),
}


@pytest.mark.parametrize("encoding", ["float16", "int8"])
@pytest.mark.parametrize(("how", "parts"), ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_an_adapter_comes_back(
    how: Any, parts: Any, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoding == "int8":
        monkeypatch.setattr("napari_coseg.models.checkpoints.adapters.LARGEST_FILE_MB", 0)
    base_file = saved_base(tmp_path)
    base, before = load(base_file), base_file.read_bytes()
    begun = start(base, **how)
    trained = changed(start(base, **how), parts)
    regions, types = ((how.get(k) or {}) for k in ("regions", "types"))
    card = card_for(trained, file_sha256(base_file), lora_rank=how.get("lora", 0), parts=parts)
    update = {
        "semantic_origins": tuple(regions.values()) or card.semantic_origins,
        "instance_origins": tuple(types.values()) or card.instance_origins,
    }
    path = tmp_path / "mine.safetensors"
    card = save_adapter(path, trained, begun, card.model_copy(update=update))
    assert card.encoding == encoding and read_adapter_card(path) == card
    adapted = load_model(base_file, "cpu", adapter=path)
    assert adapted.card == trained.card and not adapted.training
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(adapted.state_dict()[name], value, atol=2e-3, rtol=1e-3)
    for there, here in zip(answer(adapted), answer(trained), strict=True):
        torch.testing.assert_close(there, here, atol=0.1, rtol=0.05)
    assert base_file.read_bytes() == before


def test_switching_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    base = load_model(saved_base(tmp_path), "cpu")
    was, maps = fingerprint(base.state_dict(), base.state_dict()), answer(base)
    path = tmp_path / "mine.safetensors"
    trained = changed(start(base), ("decoders",))
    save_adapter(path, trained, start(base), card_for(base, model_origin(base)["sha256"]))
    adapted = switch_adapter(base, path)
    assert model_origin(adapted)["adapter"]["file"] == "mine.safetensors"
    assert not torch.equal(answer(adapted).object, maps.object)
    assert fingerprint(base.state_dict(), base.state_dict()) == was
    assert all(torch.equal(a, b) for a, b in zip(answer(base), maps, strict=True))
    with pytest.raises(CheckpointError, match="without another adapter"):
        switch_adapter(adapted, path)


def test_lora_that_a_model_has_is_changed_in_the_copy_alone(tmp_path: Path) -> None:
    base = random_coseg(regions=1)
    was, path = answer(base), tmp_path / "mine.safetensors"
    trained = changed(start(base), ("lora",))
    save_adapter(path, trained, start(base), card_for(base, SHA, parts=("lora",)))
    adapted = with_adapter(base, SHA, path)
    assert not torch.allclose(answer(adapted).object, was.object, atol=1e-3)
    torch.testing.assert_close(answer(adapted).object, answer(trained).object, atol=0.01, rtol=0.01)
    assert torch.equal(answer(base).object, was.object)


def test_only_what_changed_is_kept(tmp_path: Path) -> None:
    from napari_coseg.models.checkpoints.safe import read_header

    base = tiny_model()
    path = tmp_path / "mine.safetensors"
    save_adapter(path, changed(start(base), ("neck",)), start(base), card_for(base, SHA))
    names = {name.partition("/")[2] for name in read_header(path).shapes}
    assert names and all("neck" in n or "project_f" in n for n in names)


def _cut(path: Path, base: CosegModel) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _not_an_adapter(path: Path, base: CosegModel) -> None:
    save(path, base)


def _strange_entry(path: Path, base: CosegModel) -> None:
    import safetensors.torch as st

    from napari_coseg.models.checkpoints.safe import read_header

    metadata = read_header(path).metadata
    st.save_file({"difference/nowhere": torch.zeros(3)}, path, metadata=metadata)


def _not_finite(path: Path, base: CosegModel) -> None:
    import safetensors.torch as st

    from napari_coseg.models.checkpoints.safe import read_header

    metadata = read_header(path).metadata
    entry = {"difference/semantic_decoder.mask_tokens": torch.full((3, 32), torch.nan)}
    st.save_file(entry, path, metadata=metadata)


@pytest.mark.parametrize(
    ("spoil", "sha", "told"),
    [
        pytest.param(None, "1" * 64, "adapts 'tiny' with the hash 000000000000", id="other base"),
        pytest.param(_cut, SHA, "broken", id="cut off"),
        pytest.param(_not_an_adapter, SHA, "is not an adapter", id="a weights file"),
        pytest.param(_strange_entry, SHA, "unexpected: difference/nowhere", id="strange entry"),
        pytest.param(_not_finite, SHA, "not finite", id="not finite"),
    ],
)
def test_files_that_are_refused(spoil: Any, sha: str, told: str, tmp_path: Path) -> None:
    base, path = tiny_model(), tmp_path / "mine.safetensors"
    save_adapter(path, changed(start(base), ("decoders",)), start(base), card_for(base, SHA))
    if spoil:
        spoil(path, base)
    with pytest.raises(CheckpointError, match=told):
        with_adapter(base, sha, path)


def test_another_normalisation_is_taken_over() -> None:
    base = tiny_model()
    inverted = base.card.normalisation.model_copy(update={"std": (-50.0, -50.0, -50.0)})
    card = base.card.model_copy(update={"normalisation": inverted})
    network = starting_network(base, card, ((1,),), ((1,), (2,)))
    black = torch.zeros(1, 3, 4, 4)
    assert (network.normalise(black) > 0).all() and (base.normalise(black) < 0).all()
