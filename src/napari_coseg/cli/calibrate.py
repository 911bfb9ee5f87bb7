"""Choose decoding thresholds and temperatures of a model on labelled images, and write its card.

Use images that the model was not trained on and is not tested on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "choose a model's thresholds on validation images, and make its probabilities honest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="weights file, or the name of a shipped model")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds the folders of the datasets"
    )
    parser.add_argument("--datasets", nargs="+", required=True, help="such as: consep glas")
    parser.add_argument(
        "--partition", required=True, help="which images are for validation, as for evaluate"
    )
    parser.add_argument("--output", type=Path, required=True, help="weights file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    parser.add_argument(
        "--temperatures-only", action="store_true", help="leave the thresholds as they are"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


def run(arguments: argparse.Namespace) -> int:
    """Write the model with another card, and print what was found."""
    import torch

    from napari_coseg.core.files import refuse_existing
    from napari_coseg.datasets.registry import open_dataset
    from napari_coseg.evaluation.calibration import Part, choose_decoding, fit_temperatures
    from napari_coseg.inference.loading import load_model
    from napari_coseg.models.checkpoints.native import save

    refuse_existing([arguments.output], arguments.overwrite)
    model = load_model(arguments.model, arguments.device)
    parts = []
    for name in arguments.datasets:
        dataset = open_dataset(name, arguments.data / name, arguments.partition)
        parts.append(Part(dataset, "validation", dataset.names("validation")))
    fits = fit_temperatures(model, parts)
    for of, fit in fits.items():
        print(
            f"{of}: temperature {fit.temperature:.2f}, expected calibration error "
            f"{fit.before:.3f} -> {fit.after:.3f} ({fit.pixels:,} pixels)"
        )
    temperatures = {of: round(fit.temperature, 3) for of, fit in fits.items()}
    model.card = model.card.model_copy(update={"temperatures": temperatures})
    if not arguments.temperatures_only:
        with_objects = [part for part in parts if part.dataset.layout.instances]
        chosen = choose_decoding(model, with_objects)
        model.card = model.card.model_copy(update={"decoding": chosen})
        print(f"decoding: {chosen}")
    save(arguments.output, model, dtype=torch.float16)
    print(arguments.output)
    return 0
