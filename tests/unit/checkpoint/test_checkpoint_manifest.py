"""Manifests that are no good: refused for what they are, never a crash."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.checkpoint import latest_verified
from distill.checkpoint.find import reason_against
from distill.checkpoint.manifest import Manifest, _digest
from distill.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(found=JSON, sealed=st.booleans(), field=st.sampled_from(sorted(Manifest.model_fields)))
def test_any_json_in_the_place_of_a_manifest_is_damage(save_steps, tmp_path, found, sealed, field):
    """Alone, or in a field (which no list of lists fits) of one that matches its own digest."""
    path = tmp_path / "step-00000001"
    if not path.exists():
        save_steps(1)
    whole = (path / "manifest.json").read_bytes()
    if sealed and field not in ("format", "digest"):
        data = json.loads(whole) | {field: [[found]]}
        found = data | {"digest": _digest(data)}
    (path / "manifest.json").write_text(json.dumps(found))
    assert "manifest" in reason_against(path)
    (path / "manifest.json").write_bytes(whole)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("7" * 5000, "truncated or altered"),  # more digits than Python reads
        (json.dumps({"digest": _digest({})}), "is no manifest"),
    ],
)
def test_what_is_no_manifest_is_damage(save_steps, text, said):
    (path,) = save_steps(1)
    (path / "manifest.json").write_text(text)
    assert said in reason_against(path)


def test_file_names_in_a_manifest_cannot_leave_the_folder(save_steps):
    (path,) = save_steps(1)
    manifest = Manifest.read(path)
    entry = next(iter(manifest.files.values()))
    forged = manifest.model_copy(update={"files": {"../../etc/passwd": entry}}).sealed()
    forged.write(path)
    assert "no shards" in reason_against(path)


def test_another_format_version_is_refused_and_left_alone(save_steps, tmp_path):
    for path in save_steps(1, 2):
        Manifest.read(path)
    Manifest.read(path).model_copy(update={"format": 3}).sealed().write(path)
    with pytest.raises(UserError, match="has format 3"):
        latest_verified(tmp_path)
    assert path.is_dir()


def test_manifest_is_plain_json(save_steps):
    (path,) = save_steps(1)
    json.loads((path / "manifest.json").read_text(), parse_constant=pytest.fail)
