"""Settings drawn from the whole tree: they are read back, and plan and train agree on them."""

from __future__ import annotations

import tomllib
import types
import typing
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distill.config import Config, as_override, dump_toml, explained_toml, load_config
from distill.engine_parts.settings import micro_batch_pairs
from distill.errors import UserError
from distill.models.compiled import check_stage
from distill.objective import objective_of
from distill.objective.checks import check_head
from distill.planner.choose import choices_for, job_of
from distill.planner.facts import Choice

PEOPLE = 6
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def values(annotation: Any, limits: tuple[object, ...] = ()) -> st.SearchStrategy[Any]:
    """All that a type with its limits allows, as plain data."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        kind, *more = inner
        infos = [one.metadata if isinstance(one, FieldInfo) else [one] for one in more]
        return values(kind, (*limits, *(limit for info in infos for limit in info)))
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(one, limits) for one in inner])
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is list:
        return st.lists(values(*inner), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section(annotation)
    return _plain(annotation, limits)


def _plain(kind: type, limits: tuple[object, ...]) -> st.SearchStrategy[Any]:
    if kind is bool:
        return st.booleans()
    if kind is str:
        return TEXT
    bounds: dict[str, Any] = {}
    for limit in limits:
        match limit:
            case Ge(least) | Gt(least):
                bounds |= {"min_value": least}
            case Le(most) | Lt(most):
                bounds |= {"max_value": most}
    if kind is int:
        return st.integers(**bounds)
    assert kind is float, kind
    beyond = {"exclude_min": Gt, "exclude_max": Lt}
    beyond = {name: any(isinstance(one, kind) for one in limits) for name, kind in beyond.items()}
    return st.floats(**bounds, **beyond, allow_nan=False, allow_infinity=False)


def section(kind: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Any values for all fields, as a table of TOML has them."""
    fields = kind.model_fields.items()
    return st.fixed_dictionaries(
        {name: values(info.annotation, tuple(info.metadata)) for name, info in fields}
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(section(Config))
def test_any_settings_are_read_back(tree: dict[str, dict[str, Any]]) -> None:
    config = Config.model_validate(tree)
    assert Config.model_validate(tomllib.loads(dump_toml(config))) == config
    assert Config.model_validate(tomllib.loads(explained_toml(config))) == config
    words = [
        as_override(f"{name}.{key}", value)
        for name, fields in tree.items()
        for key, value in fields.items()
    ]
    assert load_config(None, words) == config


def some(name: str, *fields: str) -> dict[str, st.SearchStrategy[Any]]:
    """Anything that some fields of a section may be."""
    infos = type(getattr(Config(), name)).model_fields
    return {
        field: values(infos[field].annotation, tuple(infos[field].metadata)) for field in fields
    }


@st.composite
def drawn(draw: st.DrawFn) -> tuple[Config, int]:
    """Settings of what plan and train look at, of which a part fits together, and ranks."""
    ranks, accumulation, pairs = draw(st.tuples(*[st.integers(1, 3)] * 3))
    rest = draw(st.sampled_from([0, 0, 0, 1]))
    head = some("head", "placement") | {"sample_rate": st.sampled_from([1.0, 1.0, 0.5, 0.01])}
    loss = some("loss", "form", "similarity", "mmd_kernel")
    loss |= {"topk_classes": st.integers(0, PEOPLE)}
    train = some("train", "zero_stage", "images") | {
        "accumulation": st.just(accumulation),
        "global_batch_pairs": st.just(ranks * accumulation * pairs + rest),
    }
    tree = {"head": head, "loss": loss, "train": train, "model": some("model", "compile")}
    tree |= {"optimizer": some("optimizer", "clip_head")}
    parts = {name: st.fixed_dictionaries(fields) for name, fields in tree.items()}
    return Config.model_validate(draw(st.fixed_dictionaries(parts))), ranks


@settings(max_examples=250, deadline=None, derandomize=True)
@given(drawn())
def test_plan_and_train_refuse_the_same(settings_and_ranks: tuple[Config, int]) -> None:
    """And of what both take, the first step can make its loss."""
    config, ranks = settings_and_ranks
    trained = _trains(config, ranks)
    if trained:
        objective_of(config)
    assert _planned(config, ranks) == trained


def _trains(config: Config, ranks: int) -> bool:
    try:
        micro_batch_pairs(config, ranks)
        check_head(config, PEOPLE, ranks)
        check_stage(config)
    except UserError:
        return False
    return True


def _planned(config: Config, ranks: int) -> bool:
    head, train = config.head, config.train
    try:
        job = job_of(config, PEOPLE, ranks)
    except UserError:
        return False
    rate = head.sample_rate
    if head.placement == "replicated" and rate < 1.0:
        return False
    own = Choice(train.zero_stage, head.placement, config.loss.form, rate)
    return own in choices_for(config, job, (rate,))
