"""What an evaluation found, and the numbers and the file made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from distill import __version__

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = 1
CLEAN = "clean"
PROCESSED = "processed"
"""The mean of all kinds."""
LIBRARIES = ("torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Identification:
    """Naming the person of an image by the classifier's answer.

    Attributes:
        images: number of images of people that the classifier knows.
        top1: share whose most probable person is right.
        top5: share whose person is among the five most probable; None with five people or fewer.
        probability: mean probability of the right person.
        agreement: share of the images whose most probable person is the same as that of their
            clean form; None for clean images.
    """

    images: int
    top1: float
    top5: float | None
    probability: float
    agreement: float | None


@dataclass(frozen=True)
class Verification:
    """Telling pairs of the same person from pairs of two by the cosine of their embeddings.

    Attributes:
        genuine: pairs of one person compared.
        impostor: pairs of two people compared.
        genuine_total: pairs of one person there are; more than ``genuine`` where these were drawn.
        impostor_total: likewise for two people.
        auc: area under the ROC curve.
        eer: equal error rate.
        accuracy: mean accuracy by 10-fold, as many impostor as genuine pairs.
        accuracy_std: standard deviation over the ten folds.
        tar_at_far: TAR at FAR "0.1" .. "0.0001", None where too few impostor pairs carry it.
        curve: ROC points [FAR, TAR], FAR rising on a logarithmic scale.
        reasons: why a number is None, by its name.
    """

    genuine: int
    impostor: int
    genuine_total: int
    impostor_total: int
    auc: float | None = None
    eer: float | None = None
    accuracy: float | None = None
    accuracy_std: float | None = None
    tar_at_far: dict[str, float | None] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """One kind of probe: clean, or processed in one way.

    Attributes:
        name: "clean" or the kind of second image.
        identification: None where the classifier knows none of the people.
        verification: processed probes are compared with clean images of other photographs.
    """

    name: str
    identification: Identification | None
    verification: Verification


def versions() -> dict[str, str]:
    """Of this program, of Python, and of the libraries that bear on the numbers."""
    own = {"pairdistill": __version__, "python": sys.version.split()[0]}
    return own | {name: version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class Report:
    """All of an evaluation.

    Attributes:
        conditions: clean first, then the kinds in the order of the pack.
        images: held-out photographs.
        people: identities among them.
        classes: people the classifier knows, C.
        pack: name and digest of the pack; whether it says what each image was made from, so that
            no image is compared with its own source.
        checkpoint: where the weights came from, and their step; empty where unknown.
        config: the settings of the run.
        ranks: number of ranks that embedded.
        versions: of this program and of the libraries that bear on the numbers.
    """

    conditions: list[Condition]
    images: int
    people: int
    classes: int
    pack: dict[str, Any]
    checkpoint: dict[str, Any]
    config: dict[str, Any]
    ranks: int
    versions: dict[str, str] = field(default_factory=versions)
    format: int = FORMAT

    @property
    def heading(self) -> str:
        """One line on what was measured."""
        return (
            f"{of_step(self.checkpoint)}{self.images} held-out photographs of {self.people} people"
        )


def of_step(checkpoint: Mapping[str, Any]) -> str:
    """How a heading begins; blank where the step of the weights is not known."""
    step = checkpoint.get("step")
    return "" if step is None else f"step {step}: "


def as_condition(found: dict[str, Any]) -> Condition:
    """A condition from its plain form."""
    identification = found["identification"]
    return Condition(
        found["name"],
        Identification(**identification) if identification else None,
        Verification(**found["verification"]),
    )


def scalars(report: Report) -> dict[str, float]:
    """The report as flat numbers: ``clean/top1``, ``blur/agreement``, ``clean/tar_at_far_0.01``.

    ``processed/NAME`` is the mean of NAME over all kinds. Numbers that are None are left out.
    """
    flat = {
        f"{condition.name}/{name}": value
        for condition in report.conditions
        for name, value in condition_scalars(condition)
    }
    kinds = [condition.name for condition in report.conditions[1:]]
    for name in dict.fromkeys(key.split("/", 1)[1] for key in flat if not key.startswith(CLEAN)):
        values = [flat[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in flat]
        flat[f"{PROCESSED}/{name}"] = sum(values) / len(values)
    return flat


def condition_scalars(condition: Condition) -> Iterator[tuple[str, float]]:
    """The numbers of one condition that are there."""
    shown: dict[str, float | None] = {}
    if condition.identification:
        shown |= asdict(condition.identification)
    verification = condition.verification
    shown |= {name: getattr(verification, name) for name in ("auc", "eer", "accuracy")}
    shown |= {f"tar_at_far_{far}": tar for far, tar in verification.tar_at_far.items()}
    shown.pop("images", None)
    return ((name, value) for name, value in shown.items() if value is not None)


def as_json(report: DataclassInstance) -> bytes:
    """A report, of a pack or of verification sets, as the content of its JSON file."""
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")
