"""Networks whose weights one `.onnx` cannot hold, with a lower limit."""

from __future__ import annotations

import onnx
import torch
from small_networks import close, export, floats, in_runtime

from distill.export import as_onnx


def test_weights_beyond_one_file_stand_beside_it(networks, pixels, tmp_path, monkeypatch):
    """As beyond the 2 GiB of a protobuf message."""
    out, data = tmp_path / "people.onnx", tmp_path / "people.onnx.data"
    asked = [networks["cosine"].path, out, "--output", "probabilities"]
    with monkeypatch.context() as less:
        less.setattr(as_onnx, "LARGEST_BYTES", 1000)
        done = export(*asked)
    assert done.exit_code == 0, done.exception
    assert f"{data}: the weights; keep it beside people.onnx" in done.output
    assert "checked on random images" in done.output
    weights = sum(one.nbytes for one in networks["cosine"].model.state_dict().values())
    assert out.stat().st_size < weights / 2 < data.stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {
        out.name, data.name, "people.onnx.identities.json"}  # fmt: skip
    (moved := tmp_path / "elsewhere").mkdir()
    for path in list(tmp_path.glob("people*")):
        path.rename(moved / path.name)
    onnx.checker.check_model(str(moved / out.name), full_check=True)
    (found,) = in_runtime(moved / out.name).run(None, {"data": floats(pixels[1]).numpy()})
    assert close(torch.from_numpy(found), networks["cosine"].probabilities(pixels[1]))
    data.write_bytes(b"of another")
    assert "people.onnx.data: is there already" in str(export(*asked).exception)
    assert export(*asked, "--overwrite").exit_code == 0
    assert not data.exists(), "all of it fits into one file again"


def test_weights_beside_that_compute_something_else_are_not_kept(networks, tmp_path, monkeypatch):
    """The check runs on both files: here the second one is written wrongly."""
    save = torch.onnx.ONNXProgram.save

    def spoilt(program, path, **more):
        save(program, path, **more)
        data = as_onnx.data_beside(path)
        data.write_bytes(bytes(data.stat().st_size))

    monkeypatch.setattr(as_onnx, "LARGEST_BYTES", 1000)
    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", spoilt)
    done = export(networks["linear"].path, tmp_path / "face.onnx")
    assert "other numbers than the network" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
