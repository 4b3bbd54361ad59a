"""The settings of a run: one tree of frozen sections, every field with its meaning and unit.

The docstring under a field is its help text; the types and bounds are enforced when a
configuration is read (`distill.config.load`). Nothing here does any work.
"""

# over 300 lines: every setting in one place, most lines of it their help texts.

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
HUGE = 1e30
"""More than any setting means, and less than float32, in which torch computes with them, holds."""
Positive = Annotated[float, Field(gt=0.0, le=HUGE)]
NotNegative = Annotated[float, Field(ge=0.0, le=HUGE)]
Minutes = Annotated[float, Field(gt=0.0, le=1e6)]
AcuteRadians = Annotated[float, Field(ge=0.0, lt=1.57079)]
MOST = 2**63 - 1
"""The largest whole number of TOML, and of what is written in torch and numpy."""
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]


def _listed(paths: str | list[str]) -> list[str]:
    """Of a setting that takes one path or several."""
    found = [paths] if isinstance(paths, str) else paths
    return found if any(found) else []


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    def __hash__(self) -> int:
        """Of the values: some are lists, which cannot be hashed one by one."""
        return hash(self.model_dump_json())


class Ramp(Section):
    """A number that changes in a straight line over the first steps, then stays."""

    start: NotNegative
    """Value at step 0."""
    end: NotNegative
    """Value from `over_steps` on."""
    over_steps: AtLeastOne
    """Length of the ramp, in optimizer steps."""


class PositiveRamp(Ramp):
    """A ramp of a number that 0 is no value of."""

    start: Positive
    """Value at step 0."""
    end: Positive
    """Value from `over_steps` on."""


class RunConfig(Section):
    """Where a run lives and what machine it uses."""

    dir: Annotated[str, Field(min_length=1)] = "runs/default"
    """Folder of the run; created, and resumed from where it holds a checkpoint. One that holds
    other things than a run, settings (.toml) and logs is refused."""
    seed: Count = 0
    """Seed of everything random: weights, order of samples, augmentations, dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes CUDA where there is one."""
    threads_per_rank: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads of each rank; 0 divides the cores of this process among the local ranks, unless
    Slurm or the launcher has given each rank its own."""
    resume: bool = True
    """Go on from the newest verified checkpoint in `run.dir`; if false, one there is refused."""
    accept: Literal["nothing", "data", "identities", "all"] = "nothing"
    """Differences from its checkpoint that a resume accepts: `data`, another training pack, or
    other photographs left out; `identities`, other names of the people."""


class DataConfig(Section):
    """The packed pairs and how they are read."""

    train: str | list[str] = ""
    """Folder of the training pack (made by `pairdistill pack`), or a list of several: pairs of all
    are mixed, and people are told apart by their names."""
    same_names: Literal["refuse", "same_person", "different_people"] = "refuse"
    """What a name that several training packs have means: `same_person` makes one class of it,
    `different_people` one for each pack; `refuse` asks for one of these two."""
    exclude: str | list[str] = ""
    """List of photographs of the training packs to train without (made by `pairdistill audit`), or
    several; their people keep their classes."""
    evaluation: str = ""
    """Folder of the held-out pack; empty for none."""
    second: Literal["packed", "online"] = "packed"
    """`packed`: second images are in the training pack; `online`: made anew in every epoch while
    training, from a pack made with `--layout singles`."""
    reader: Literal["ffcv", "python"] = "ffcv"
    """`ffcv` decodes in compiled threads; `python` is the slow reference, same order and pixels."""
    workers: AtLeastOne = 1
    """Decoding threads a rank; clamped to the cores of the rank, with a note. `submit` asks for as
    many cores for a rank with a GPU."""
    prefetch_batches: Annotated[int, Field(ge=1, le=1024)] = 2
    """Batches decoded ahead of the step."""
    shuffle: Literal["full", "block"] = "full"
    """`full` mixes all pairs; `block` what is read at a time, for packs larger than memory."""
    block_pairs: AtLeastOne = 256
    """Pairs of a block, side by side on disk (`block`)."""
    window_blocks: AtLeastOne = 256
    """Blocks mixed with each other; two such windows are kept in memory (`block`)."""
    flip_probability: Probability = 0.5
    """Chance that a pair is mirrored (both images together)."""
    shift_pixels: Annotated[int, Field(ge=0, le=16)] = 2
    """Largest random translation of each image, in pixels, either way."""
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Largest random relative change of brightness of each image."""
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Largest random relative change of contrast of each image."""

    @property
    def train_packs(self) -> list[str]:
        """Folders of the training packs; none where the setting is empty."""
        return _listed(self.train)

    @property
    def exclude_lists(self) -> list[str]:
        """Files that say what not to train on; none where the setting is empty."""
        return _listed(self.exclude)


class ModelConfig(Section):
    """The backbone that turns a face into an embedding."""

    name: str = "iresnet18"
    """Registered backbone (`iresnet18/34/50/100/200`, `mobile`, `vit_small`, `tiny`; `insight_...`,
    others of arcface_torch, docs/arcface.md), or `timm:NAME`."""
    embedding_dim: Annotated[int, Field(ge=1, le=65536)] = 512
    """Dimension D of the embedding."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout before the embedding layer."""
    recompute: Literal["none", "blocks"] = "none"
    """`blocks`: blocks of the backbone forget their activations, and make them again in backward:
    less memory, more time, the same numbers (docs/planner.md); may change at a resume."""
    compile: bool = False
    """Let `torch.compile` fuse the operators of the backbone in training: a slow first step, then
    faster ones, other rounding (docs/compile.md); not with ZeRO 3; may change at a resume."""
    init_from: str = ""
    """Run folder, checkpoint or model.safetensors whose backbone a fresh run starts from, and whose
    rows of the head, matched by the names of the identities; or a backbone of arcface_torch as
    safetensors, with or without its head (docs/arcface.md); empty for none."""
    init_head: bool = True
    """Take rows of the head from `init_from` as well; if false, the backbone alone."""


class HeadConfig(Section):
    """The layer from embedding to identities."""

    placement: Literal["replicated", "sharded"] = "replicated"
    """`replicated`: a part of the network, which ZeRO shards as any other; `sharded`: each rank
    owns a range of the identities, with its own optimizer state (docs/heads.md)."""
    sample_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of each rank's identities that a step is about: those of its batch, and others drawn
    at random; below 1 it needs `placement` sharded."""
    kind: Literal["linear", "cosine"] = "cosine"
    """`linear`: weight and bias; `cosine`: normalised embedding and weight, times `scale`."""
    sub_centres: Annotated[int, Field(ge=1, le=256)] = 1
    """Weights K of each identity, whose cosine is the largest of K (cosine head only): the faces of
    a noisy identity need not all be near one (docs/heads.md)."""
    scale: Positive = 64.0
    """Scale s of cosine logits."""
    margin: Literal["none", "arcface", "cosface", "combined", "adaface"] = "none"
    """Margin on the target logit of the cross-entropies (cosine head only)."""
    arc_margin_rad: AcuteRadians = 0.5
    """Additive angular margin in radians (`arcface`, `combined`)."""
    cos_margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.35
    """Additive cosine margin (`cosface`, `combined`)."""
    margin_slope: Literal["exact", "one"] = "exact"
    """Derivative of the margin (`arcface`, `combined`): its own, or `one`, as arcface_torch leaves
    it out: the gradient of the own class is then that of its cosine (docs/arcface.md)."""
    adaface_margin: AcuteRadians = 0.4
    """Largest angle in radians, and half of the largest cosine margin (`adaface`)."""
    adaface_h: Positive = 0.333
    """Share of the range of margins that a standard deviation of length takes (`adaface`)."""
    adaface_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """Weight of a batch's lengths in their running mean and deviation (`adaface`)."""


class LossConfig(Section):
    """w_ce (CE(first) + CE(second)) + weight * similarity of the softened answers."""

    form: Literal["plain", "fused"] = "plain"
    """`plain`: the scores of a batch for all identities are stored; `fused`: they are made in
    chunks, from the embeddings and the head's weight, and never all exist."""
    kept_scores_mb: NotNegative = 256.0
    """MiB of scores that `fused` may keep from forward to backward; the rest is made again."""
    similarity: Literal["kl", "ce", "mmd", "none"] = "kl"
    """KL divergence, cross-entropy, squared maximum mean discrepancy, or no similarity term."""
    direction: Literal["forward", "reverse", "symmetric"] = "symmetric"
    """`forward` S(p, q), `reverse` S(q, p), `symmetric` their mean; p is the first answer."""
    mmd_kernel: Literal["linear", "rbf"] = "linear"
    """`linear`: |p - q|^2 a pair; `rbf`: several Gaussian kernels over the batch."""
    topk_classes: Count = 0
    """K > 0: the similarity sees the own class, the K - 1 others that the first answer finds most
    probable, and the rest as one class; 0: all classes."""
    weight: NotNegative | Ramp = 1.0
    """Weight of the similarity; a number or a ramp over steps."""
    temperature: Positive | PositiveRamp = 3.0
    """Softening temperature T; a number or a ramp over steps."""
    scale_by_t2: bool = True
    """Multiply the similarity by T^2, which keeps its gradients comparable when T changes."""
    stop_gradient: Literal["none", "first", "second"] = "none"
    """Side whose answer is a fixed target in the similarity term."""
    ce: Literal["sum", "mean"] = "sum"
    """The two cross-entropies added, or their mean."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Label smoothing of the cross-entropies."""
    implementation: Literal["auto", "native", "reference"] = "auto"
    """`native` C++/CUDA op, `reference` plain torch, `auto` the native one where it is built."""


class OptimizerConfig(Section):
    """How gradients become updates."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: Positive = 0.1
    """Peak learning rate, at a global batch of `lr_batch_pairs` where that is set."""
    lr_batch_pairs: Count = 0
    """Global batch, in pairs, that `lr` is meant for; another one scales it. 0 takes `lr` as is."""
    lr_scaling: Literal["linear", "sqrt"] = "linear"
    """`linear`: k times the batch, k times the rate; `sqrt`: the square root of k times."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """First-moment decay of AdamW."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Second-moment decay of AdamW."""
    eps: Annotated[float, Field(ge=1e-30, le=HUGE)] = 1e-8
    """Denominator term of AdamW."""
    weight_decay: NotNegative = 5e-4
    """Weight decay; not applied to biases and normalisation parameters."""
    clip_norm: NotNegative = 5.0
    """Largest global gradient norm over all parameters; 0 switches clipping off."""
    clip_head: bool = True
    """Whether the head's gradient counts in that norm and is clipped; false, as in arcface_torch,
    needs `head.placement` sharded, and the norm that is logged is the backbone's."""
    schedule: Literal["polynomial", "cosine", "constant"] = "polynomial"
    """Decay of the learning rate after warm-up."""
    warmup_steps: Count = 0
    """Steps of linear warm-up from the peak rate / steps to the peak rate."""
    power: Positive = 1.0
    """Power of the polynomial decay."""
    final_lr_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Learning rate that the decay ends at, one step after the last, as a fraction of the peak."""


class TrainConfig(Section):
    """How long, how large, how precise, how sharded."""

    epochs: AtLeastOne = 20
    """Passes over the training pairs; ignored where `steps` is set. A run that goes on with another
    batch makes those that are left."""
    steps: Count = 0
    """Optimizer steps; 0 derives them from `epochs`."""
    global_batch_pairs: AtLeastOne = 128
    """Pairs of one optimizer step over all ranks; divisible by ranks * accumulation."""
    accumulation: AtLeastOne = 1
    """Forward passes whose gradients make one optimizer step."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO: 0 replicates, 1 shards optimizer states, 2 also gradients, 3 also weights."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the network; the loss is computed in float32. `fp16` needs CUDA."""
    images: Literal["pair", "first"] = "pair"
    """`first` trains on the sample images alone (a baseline): no second image is read or made, and
    there is no similarity."""
    nonfinite_limit: Count = 0
    """Consecutive non-finite losses skipped on all ranks before the run stops; 0: stop at once."""
    collective_timeout_min: Minutes = 30.0
    """Minutes a collective, or the first meeting, may wait for a rank before the run fails."""
    hang_timeout_min: Minutes = 15.0
    """Minutes a rank may be without progress before all show their stacks and the run fails."""

    @property
    def images_per_pair(self) -> int:
        """Images of a pair that training uses: both, or 1, the first."""
        return 2 if self.images == "pair" else 1


class CheckpointConfig(Section):
    """What is kept of a run."""

    every_steps: Count = 1000
    """Steps between checkpoints; 0 saves at the end only."""
    keep_last: AtLeastOne = 2
    """Newest checkpoints kept."""
    keep_best: Count = 1
    """Best checkpoints kept besides, by `best_metric`; 0 for none."""
    best_metric: str = "clean/top1"
    """Evaluation scalar that decides which is best; larger is better."""


class EvaluateConfig(Section):
    """Measuring on the held-out pack and on verification sets."""

    sets: str | list[str] = []
    """Verification set (InsightFace's `.bin` file or a folder of them, a `pairs.txt`, a folder of
    IJB), or a list of several, that a run measures whenever it evaluates; `lfw/accuracy` of
    `lfw.bin` may then be `checkpoint.best_metric`."""
    every_steps: Count = 0
    """Steps between evaluations while training; 0 evaluates at the end only."""
    batch_images: AtLeastOne = 64
    """Images of one forward pass a rank."""
    impostor_pairs_max: AtLeastOne = 1_000_000
    """Different-person pairs of the verification curves; drawn at random where there are more."""

    @property
    def set_paths(self) -> list[str]:
        """Files and folders of the verification sets; none where the setting is empty."""
        return _listed(self.sets)


class MonitorConfig(Section):
    """What is written while training."""

    tensorboard: bool = True
    """Write TensorBoard event files under `run.dir`/tensorboard."""
    log_every_steps: AtLeastOne = 10
    """Steps between lines of metrics.jsonl, TensorBoard scalars and plain progress lines."""
    images: bool = False
    """Show pictures of pairs in TensorBoard; without it no face gets into any log."""
    pictures_every_steps: AtLeastOne = 500
    """Steps between those pictures."""


class Config(Section):
    """Everything `pairdistill train` needs to know."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    monitor: MonitorConfig = MonitorConfig()

    def with_packs(self, moved: Callable[[str], str]) -> Self:
        """The same settings on packs elsewhere: ``moved`` says where each one is."""
        folders = [moved(pack) for pack in self.data.train_packs]
        train = folders if isinstance(self.data.train, list) else "".join(folders)
        evaluation = moved(self.data.evaluation) if self.data.evaluation else ""
        data = self.data.model_copy(update={"train": train, "evaluation": evaluation})
        return self.model_copy(update={"data": data})
