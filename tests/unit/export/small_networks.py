"""Small trained networks, and what they give in float64."""

from __future__ import annotations

import json

import onnxruntime
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.config.tree import Config, HeadConfig, ModelConfig
from distill.models import build_classifier

PEOPLE = ["Ann", "Боб\nHill", "=Ça,va", "\udcff", "dee"]
HEADS = {
    "linear": HeadConfig(kind="linear"),
    "cosine": HeadConfig(kind="cosine", margin="arcface", scale=16.0),
    "sub-centres": HeadConfig(kind="cosine", sub_centres=3, scale=16.0),
}

ASKED = {
    "face.onnx": ["linear"],
    "face.pt2": ["linear"],
    "people.onnx": ["cosine", "--output", "probabilities", "--input", "uint8"],
    "people.pt2": ["cosine", "--output", "probabilities"],
    "centres.onnx": ["sub-centres", "--output", "probabilities", "--input", "uint8"],
    "centres.pt2": ["sub-centres", "--output", "probabilities"],
    "named.pt2": ["linear", "--output", "probabilities", "--input", "uint8"],
    "backbone.safetensors": ["linear"],
}


def export(*words):
    return CliRunner().invoke(build_app(), ["export", *map(str, words)])


def trained(config):
    """Random weights, with statistics that only the evaluation mode uses."""
    torch.manual_seed(2)
    model = build_classifier(config, len(PEOPLE)).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("head.weight", "linear.weight")):
            tensor.normal_()
    return model


def write_weights(path, config):
    """A network, and its weights as a run leaves them."""
    model = trained(config)
    about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "run-7"}
    about |= {"config": json.dumps(config.model_dump()), "identities": json.dumps(PEOPLE)}
    save_file(model.state_dict(), path, about)
    return model


class Network:
    """A network as a run leaves it, and what it gives."""

    def __init__(self, folder, head):
        config = Config(model=ModelConfig(name="tiny", embedding_dim=32), head=HEADS[head])
        self.path = folder / "model.safetensors"
        self.model = write_weights(self.path, config)
        self.double = trained(config).double()

    @torch.no_grad()
    def embeddings(self, pixels):
        """(N, 32) float64 of (N, 3, 112, 112) uint8, RGB."""
        return self.double.backbone(pixels.double() / 127.5 - 1)

    @torch.no_grad()
    def probabilities(self, pixels):
        """(N, 5) float64, by the formula of each head."""
        found, head = self.embeddings(pixels), self.double.head
        if head.bias is not None:
            logits = found @ head.weight.T + head.bias
        else:
            of_each = head.weight.view(len(PEOPLE), -1, 32).unbind(1)
            lengths = found.norm(dim=1)[:, None]
            cosines = [found @ w.T / (lengths * w.norm(dim=1)) for w in of_each]
            logits = head.scale * torch.stack(cosines).amax(0)
        powers = logits.exp()
        return powers / powers.sum(1, keepdim=True)


def floats(images):
    return (images.float() - 127.5) / 127.5


def close(given, expected):
    assert given.shape == expected.shape
    assert expected.std() > 1e-3  # not one number for all images
    return float((given - expected).abs().max()) < 2e-6 * max(1.0, float(expected.abs().max()))


def in_runtime(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
