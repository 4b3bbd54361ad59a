"""What a file for other programs shall be: its form, what it takes and what it gives."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from distill.errors import UserError


class Form(enum.StrEnum):
    """How the network is written; also the ending of the file."""

    ONNX = "onnx"
    PT2 = "pt2"
    SAFETENSORS = "safetensors"


class Gives(enum.StrEnum):
    """What comes out: embeddings (N, D), not of unit length; or probabilities (N, C)."""

    EMBEDDING = "embedding"
    PROBABILITIES = "probabilities"


class Takes(enum.StrEnum):
    """What goes in, (N, 3, 112, 112), RGB: float32 in [-1, 1], or bytes in [0, 255]."""

    FLOAT = "float"
    UINT8 = "uint8"


@dataclass(frozen=True)
class Wanted:
    """One file.

    Raises:
        UserError: weights alone are asked for more than weights are.
    """

    form: Form
    gives: Gives = Gives.EMBEDDING
    takes: Takes = Takes.FLOAT

    def __post_init__(self) -> None:
        plain = self.gives is Gives.EMBEDDING and self.takes is Takes.FLOAT
        if self.form is Form.SAFETENSORS and not plain:
            raise UserError(
                "a .safetensors holds the weights of the backbone, and computes nothing:"
                f" no --output {self.gives} of --input {self.takes}",
                fix="leave both away, or export to .onnx or .pt2",
            )


def form_of(out: Path) -> Form:
    """The form that the ending of a file stands for.

    Raises:
        UserError: it stands for none.
    """
    ending = out.suffix.lower().removeprefix(".")
    if ending not in list(Form):
        raise UserError(
            f"{out}: its ending is none of {', '.join(f'.{form}' for form in Form)}",
            fix="choose one of them, or say --format",
        )
    return Form(ending)
