"""The network as ONNX, by torch's exporter; the packages for it are an optional extra.

Fed as InsightFace's own files are: `python-package/insightface/model_zoo/arcface_onnx.py` wants one
input (N, 3, 112, 112) and one output, and derives from the names of the first eight nodes whether
the graph normalises pixels itself (one begins with "Sub" and one with "Mul"). Ours begin with
"node_", so that it feeds RGB, (pixel - 127.5) / 127.5. The input has the name that its
`torch2onnx.py` gives it.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from distill.errors import UserError
from distill.export.as_program import program_of
from distill.export.network import as_taken, random_images
from distill.export.wanted import Gives, Takes
from distill.extras import how_to_install

OPSET, IR_VERSION = 18, 8
"""The oldest operators that torch's exporter writes, and the format of ONNX 1.13, which has them
(`onnx.helper.VERSION_TABLE`)."""
INPUT_NAME = "data"
EXPORTERS = ("onnx", "onnxscript")
RUNTIME = "onnxruntime"
LARGEST_BYTES = 3 << 29
"""Weights that one file holds: a protobuf message takes 2 GiB, and from 1.5 GiB on torch's exporter
puts them into another file."""


def check_exporters() -> None:
    """Refuse ONNX where its packages are missing.

    Raises:
        UserError: they are.
    """
    missing = [name for name in EXPORTERS if find_spec(name) is None]
    if missing:
        raise UserError(
            f".onnx needs {' and '.join(missing)}, not installed here",
            fix=f"install them with `{how_to_install('onnx')}`, or export to .pt2",
        )


def data_beside(path: Path) -> Path:
    """Where the exporter puts weights that do not fit into ``path``, which names it inside."""
    return path.with_name(f"{path.name}.data")


def write_onnx(
    path: Path, network: nn.Module, takes: Takes, gives: Gives, facts: Mapping[str, str]
) -> None:
    """Write an `.onnx`; weights that are too large for one file into `data_beside` it.

    Raises:
        OSError: no space, no permission.
    """
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    program = program_of(network, takes)
    with _quiet():
        converted = torch.onnx.export(
            program,
            (as_taken(random_images(2), takes),),
            input_names=[INPUT_NAME],
            output_names=[gives],
            dynamic_shapes=({0: "batch"},),
            opset_version=OPSET,
            verbose=False,
        )
    assert converted is not None, "the exporter that is based on torch.export gives a program"
    _only_facts(converted, facts)
    converted.save(path, external_data=size > LARGEST_BYTES)


def _only_facts(converted: torch.onnx.ONNXProgram, facts: Mapping[str, str]) -> None:
    """In place of what the exporter notes of its own work, for which the format has no room."""
    model, graph = converted.model, converted.model.graph
    model.ir_version = IR_VERSION
    nodes = list(graph.all_nodes())
    values = [value for node in nodes for value in node.outputs]
    for one in (graph, *nodes, *values, *graph.inputs, *graph.initializers.values()):
        one.metadata_props.clear()
    model.metadata_props.update(facts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says to those who write it: of torchvision, of torch itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(before)


def can_run() -> bool:
    """Whether an `.onnx` can be checked here."""
    return find_spec(RUNTIME) is not None


def run_onnx(path: Path, images: torch.Tensor) -> torch.Tensor:
    """What the file makes of images, as it takes them, in onnxruntime on the CPU."""
    runtime = importlib.import_module(RUNTIME)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {INPUT_NAME: images.numpy()})
    return torch.from_numpy(found)
