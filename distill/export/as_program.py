"""The network as torch's own exported program, `.pt2`: torch alone loads and runs it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from distill.export.network import as_taken, random_images
from distill.export.wanted import Takes

FACTS_NAME = "pairdistill.json"
"""The file inside of it that says what it is; an `extra_files` of `torch.export.load`."""


class _Sink(io.BytesIO):
    """Passes on what torch writes, and keeps the first error to itself until all is written.

    An error that torch's writer of archives meets is thrown by a destructor of C++, which ends the
    process.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: Any, /) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


@torch.no_grad()
def program_of(network: nn.Module, takes: Takes) -> torch.export.ExportedProgram:
    """The network as a graph, for any number of images; without paths of source files in it."""
    example = as_taken(random_images(2), takes)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def write_program(path: Path, network: nn.Module, takes: Takes, facts: Mapping[str, str]) -> None:
    """Write a `.pt2`.

    Raises:
        OSError: no space, no permission.
    """
    program = program_of(network, takes)
    with path.open("wb") as file:
        sink = _Sink(file)
        torch.export.save(program, sink, extra_files={FACTS_NAME: json.dumps(facts)})
        if sink.error is not None:
            raise sink.error


@torch.no_grad()
def run_program(path: Path, images: torch.Tensor) -> torch.Tensor:
    """What the file makes of images, as it takes them."""
    with path.open("rb") as file:  # whatever its ending is at the moment
        found: torch.Tensor = torch.export.load(file).module()(images)
    return found
