"""What an exported file says of itself, so that nobody has to guess how it is fed."""

from __future__ import annotations

from distill import __version__
from distill.data.batch import IMAGE_SIZE
from distill.export.wanted import Gives, Takes, Wanted
from distill.trained import Trained, TrainedBackbone

BYTES = {"input": "uint8", "mean": "0", "std": "1"}
FLOATS = {"input": "float32", "mean": "127.5", "std": "127.5"}


def facts_of(trained: TrainedBackbone, wanted: Wanted, names: str | None) -> dict[str, str]:
    """Words by words; the input is (pixel - mean) / std of pixels in [0, 255].

    Args:
        trained: the network.
        wanted: what the file takes and gives.
        names: the file with the names of the people; None where it gives no probabilities.
    """
    return {
        "made_by": f"pairdistill {__version__}",
        "run": trained.run_id,
        "step": str(trained.step),
        "network": trained.config.model.name,
        **(BYTES if wanted.takes is Takes.UINT8 else FLOATS),
        "layout": "NCHW",
        "size": f"{IMAGE_SIZE}x{IMAGE_SIZE}",
        "colours": "RGB",
        "alignment": "ArcFace's template of five points",
        "output": wanted.gives,
        **_of_output(trained, wanted.gives, names),
    }


def _of_output(trained: TrainedBackbone, gives: Gives, names: str | None) -> dict[str, str]:
    if gives is Gives.EMBEDDING:
        return {"numbers": str(trained.config.model.embedding_dim), "unit_length": "no"}
    assert isinstance(trained, Trained) and names is not None, "probabilities need a head"
    return {"numbers": str(len(trained.identities)), "names": names}
