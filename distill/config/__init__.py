"""Settings: read from TOML, changed by `a.b=c`, checked as a whole."""

from distill.config.load import (
    as_override,
    dump_toml,
    explained_toml,
    load_config,
    parse_overrides,
)
from distill.config.tree import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    HeadConfig,
    LossConfig,
    ModelConfig,
    MonitorConfig,
    OptimizerConfig,
    PositiveRamp,
    Ramp,
    RunConfig,
    Section,
    TrainConfig,
)

__all__ = [
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "HeadConfig",
    "LossConfig",
    "ModelConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "PositiveRamp",
    "Ramp",
    "RunConfig",
    "Section",
    "TrainConfig",
    "as_override",
    "dump_toml",
    "explained_toml",
    "load_config",
    "parse_overrides",
]
