"""Lines of HTML about what is reviewed and what a training would take."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from napari_coseg.core.words import counted
from napari_coseg.widgets.finetune.adapters import SHOWN_SCORES
from napari_coseg.widgets.job_bar import in_words

PART_WORDS = {
    "prompt_encoders": "prompt encoders",
    "decoders": "decoders",
    "adapters": "adapters",
    "neck": "neck",
    "lora": "LoRA",
}


def review_lines(values: Mapping[str, Any]) -> list[str]:
    """Of `Reviews` as plain values: images, objects of each class, regions."""
    lines = [
        f"<b>{counted(values['images'], 'image')}</b>, "
        f"{counted(values['objects'], 'whole object')}, {values['area_px'] / 1e6:.2f} Mpx"
    ]
    for title, counts, unit in (
        ("Objects", values["objects_by_class"], ""),
        ("Regions", values["region_px_by_class"], " px"),
    ):
        if counts:
            counts_shown = [f"{html.escape(name)} {n:,}{unit}" for name, n in counts.items() if n]
            none = [html.escape(name) for name, n in counts.items() if not n]
            lines.append(f"{title}: {', '.join(counts_shown) or 'none'}")
            if counts_shown and none:
                lines.append(f"⚠ nothing reviewed of {', '.join(none)}")
    return lines


def estimate_lines(values: Mapping[str, Any]) -> list[str]:
    """Of `Estimate` as plain values: time, memory, what trains, what scores."""
    memory = values["memory_mb"]
    return [
        f"<b>About {in_words(values['seconds'])}</b>: {values['steps']:,} steps of "
        f"{values['seconds_a_step']:.2g} s",
        f"<b>{memory / 1000:.1f} GB</b> of memory, {values['disk_mb']:.0f} MB on disk until the end"
        if memory >= 1000
        else f"<b>{memory:.0f} MB</b> of memory, {values['disk_mb']:.0f} MB on disk until the end",
        f"Runs on {html.escape(values['device'])}, {values['precision']}",
        f"Trains {values['trained_weights'] / 1e6:.2f} M weights: "
        + ", ".join(PART_WORDS.get(part, part) for part in values["parts"]),
        f"Held out to score: {counted(values['held_out_objects'], 'object')} in "
        f"{counted(values['held_out_images'], 'image')}",
        *_score_lines(values["base_scores"]),
    ]


def _score_lines(scores: Mapping[str, Any]) -> list[str]:
    shown = [f"{words} {scores[n]:.2f}" for n, words in SHOWN_SCORES.items() if n in scores]
    return [f"The base scores on the first of them: {', '.join(shown)}"] if shown else []
