"""`pairdistill export`: the trained network as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.arguments import BackboneWeights
from distill.export.wanted import Form, Gives, Takes, Wanted, form_of

if TYPE_CHECKING:
    from distill.export.write import Exported


def export_command(
    weights: BackboneWeights,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The file: .onnx, .pt2 or .safetensors.", show_default=False
        ),
    ],
    form: Annotated[
        Form | None,
        typer.Option("--format", help="How to write it.", show_default="by the ending of OUT"),
    ] = None,
    gives: Annotated[Gives, typer.Option("--output", help="What comes out.")] = Gives.EMBEDDING,
    takes: Annotated[
        Takes,
        typer.Option("--input", help="What goes in: floats in [-1, 1], or bytes as they are."),
    ] = Takes.FLOAT,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write the trained network for other programs, and check that the file gives what it gives.

    **Examples**

        pairdistill export runs/demo face.onnx

        pairdistill export runs/demo people.pt2 --output probabilities --input uint8

        pairdistill export runs/demo backbone.safetensors

    Images are RGB faces (N, 3, 112, 112), aligned to ArcFace's template; floats are
    (pixel - 127.5) / 127.5. Embeddings are not of unit length. With probabilities the names of the
    people are written to OUT.identities.json. Weights that an *.onnx* cannot hold are written to
    OUT.data. *.safetensors* holds the weights of the backbone, under the names of
    arcface_torch where it has that network.
    *.onnx* needs onnx, onnxscript and onnxruntime, which `make setup` installs. `docs/export.md`
    says more.
    """
    from distill.export.write import export_network

    wanted = Wanted(form or form_of(out), gives, takes)
    tell(out, export_network(weights, out, wanted, overwrite=overwrite))


def tell(out: Path, done: Exported) -> None:
    """What was written, and how far it is from the network."""
    from distill.console import say, warn

    facts = done.facts
    say(f"{out}: {facts['input']} images to {facts['output']} ({facts['numbers']} numbers)")
    for path in done.beside:
        if path.suffix == ".json":
            say(f"{path}: names of the {facts['numbers']} people, in that order")
        else:
            say(f"{path}: the weights; keep it beside {out.name}, under this name")
    if done.difference is None:
        warn("not checked: onnxruntime is not installed")
    else:
        say(
            f"checked on random images: at most {done.difference:.2g} from the network,"
            f" whose largest number is {done.largest:.2g}"
        )
