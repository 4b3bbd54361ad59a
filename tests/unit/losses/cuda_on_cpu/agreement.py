"""The CUDA kernels against the float64 reference: emulated, for test_loss_cuda_on_cpu.py, or on a
GPU (`DEVICE`), for tests/gpu.

Every function takes the way that the rows go (`small`, `cluster:2`, `cluster:4`, `split` or empty
for the rule) from the environment variable PAIRDISTILL_CUDA_PATH, as the operators do.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from loss_cases import Case, make_case

from distill.losses import PairLossSpec, RowMargins, fused, reference, registration

OPS = torch.ops.pairdistill
DEVICE = "cpu"
# Error of float32 arithmetic relative to 1 + |value|, and a unit in the last place of the largest
# logit beside it; a gradient is rounded to its type.
UNIT = {torch.float64: 1e-14, torch.float32: 6e-7, torch.float16: 6e-7, torch.bfloat16: 6e-7}
LAST = dict.fromkeys(UNIT, 2.0**-23) | {torch.float64: 2.0**-52}
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-8}
CE, SIMILARITY = 0.75, 0.5  # weights of the total
SPEC = PairLossSpec()


def expected(
    case: Case, weights: torch.Tensor, T: float, spec: PairLossSpec, margins: RowMargins | None
) -> tuple:
    """Total, values, extras, tops and gradients by the reference in float64."""
    z1, z2 = (z.double().clone().requires_grad_() for z in (case.first, case.second))
    terms = reference.row_terms(z1, z2, case.labels, T, spec, margins)
    shares = weights.double() * (case.labels >= 0)
    shares = shares / shares.sum() if shares.sum() else shares
    first, second, similarity = terms.parts
    total = (shares * (CE * (first + second) + SIMILARITY * similarity)).sum()
    total.backward()
    return total.detach(), terms.values.detach(), terms.extras, terms.tops, z1.grad, z2.grad


def check(
    case: Case,
    dtype: torch.dtype,
    T: float,
    spec: PairLossSpec,
    weights: torch.Tensor | None = None,
    margins: RowMargins | None = None,
) -> None:
    """All three ways to ask for a loss: in one go, in place, and forward with backward."""
    B = len(case.labels)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    w = torch.ones(B, dtype=wide) if weights is None else weights.to(wide)
    true = expected(case, w, T, spec, margins)
    table = None if margins is None else margins.table(wide).to(DEVICE)
    first, second = case.first.to(DEVICE, dtype), case.second.to(DEVICE, dtype)
    labels, w = case.labels.to(DEVICE), w.to(DEVICE)
    options = (CE, SIMILARITY, 1, *fused.choices(spec, T))
    given = None if weights is None else w
    ours = OPS.pair_loss_and_grad(first, second, labels, given, *options, table)
    close(ours, true, case, dtype, T, spec)
    again = OPS.pair_loss_and_grad(first, second, labels, given, *options, table)
    inside = first.clone(), second.clone()
    rows = OPS.pair_loss_and_grad_(*inside, labels, given, *options, table)
    for a, b, c in zip(ours, again, (*rows, *inside), strict=True):
        assert same_bits(a, b)
        assert same_bits(a, c)
    values, extras, tops, stats = OPS.pair_loss(first, second, labels, *options[3:], table)
    share = w * (labels >= 0)
    share = share / share.sum() if share.sum() else share
    up = torch.stack([CE * share, CE * share, SIMILARITY * share * (spec.similarity != "none")], 1)
    grads = OPS.pair_loss_backward(up, first, second, labels, stats, *options[3:])
    close((true[0], values, extras, tops, *grads), true, case, dtype, T, spec)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def close(ours: tuple, true: tuple, case: Case, dtype: torch.dtype, T: float, spec) -> None:
    ours = tuple(x.cpu() for x in ours)
    factor = max(1.0, spec.similarity_scale(T))
    finite = [z[z.isfinite()].abs().max().item() for z in (case.first, case.second)]
    allowed = UNIT[dtype] * factor + LAST[dtype] * spec.logit_scale * max(finite)
    assert torch.equal(ours[3], true[3]), "tops"
    for index in (0, 1, 2, 4, 5):
        a, b = ours[index].double(), true[index].double()
        rounding = ROUNDING[dtype] * b.abs() if index > 3 else 0.0
        error = ((a - b).abs() - rounding).clamp(min=0) / (1 + b.abs())
        assert error.isfinite().all(), f"output {index} is not finite"
        assert error.max() <= allowed, f"output {index}: {error.max():.2e} > {allowed:.2e}"


def every_kind_scale_and_type() -> None:
    torch.manual_seed(1)
    number = 0
    for scale in (0.1, 1.0, 10.0, 64.0):
        for similarity in ("kl", "ce", "mmd", "none"):
            for dtype in list(UNIT)[number // 2 % 2 :: 2]:  # each pair of types in turn
                number += 1
                direction = ("forward", "reverse", "symmetric")[number % 3]
                spec = PairLossSpec(
                    similarity=similarity,
                    direction=direction,
                    label_smoothing=(0.0, 0.1)[number % 2],
                    stop_gradient=("none", "first", "second")[number // 2 % 3],
                )
                C = (301, 997, 64, 1030)[number // 2 % 4]
                case = make_case(2, C, scale, dtype=dtype, ignored=number % 4 == 0)
                check(case, dtype, 3.0, spec, torch.rand(2) if number % 3 else None)


def margins_and_scales() -> None:
    for dtype in UNIT:
        for angle, cosine in ((0.5, 0.0), (0.3, 0.2)):
            spec = PairLossSpec(logit_scale=64.0, margin_angle_rad=angle, margin_cosine=cosine)
            case = make_case(2, 401, 0.3, dtype=dtype)
            cosines = (z.clamp(-0.99, 0.99).to(dtype).double() for z in (case.first, case.second))
            check(Case(*cosines, case.labels), dtype, 2.0, spec)


def margins_of_each_image() -> None:
    """Of both signs; targets at both ends, where the angle is not added any more."""
    angle, cosine = torch.tensor([-0.4, 0.3, -0.2, 0.0, 0.4, -0.4]), torch.rand(6)
    for dtype in UNIT:
        case = make_case(3, 401, 0.3, dtype=dtype)
        first, second = (z.clamp(-0.99, 0.99) for z in (case.first, case.second))
        first[0, case.labels[0]], second[1, case.labels[1]] = 0.97, -0.98
        cosines = (z.to(dtype).double() for z in (first, second))
        margins = RowMargins(angle, cosine)
        spec = PairLossSpec(logit_scale=64.0)
        check(Case(*cosines, case.labels), dtype, 2.0, spec, margins=margins)


def odd_sizes_and_labels_at_every_edge() -> None:
    for C in (2, 7, 9, 255, 2311):
        case = make_case(4, C, 5.0)
        case.labels.copy_(torch.tensor([0, C - 1, C // 2, -1]))
        check(case, torch.float32, 2.0, PairLossSpec())
        check(case.to(torch.bfloat16), torch.bfloat16, 2.0, PairLossSpec(similarity="mmd"))


def rows_of_any_alignment() -> None:
    """Rows that start anywhere, in the same way or not; nothing beside them is touched."""
    options = (CE, SIMILARITY, 2, *fused.choices(PairLossSpec(label_smoothing=0.1), 2.0))
    for dtype in UNIT:
        case = make_case(2, 301, 2.0, dtype=dtype)
        first, second = case.first.to(DEVICE, dtype), case.second.to(DEVICE, dtype)
        labels = case.labels.to(DEVICE)
        true = OPS.pair_loss_and_grad(first, second, labels, None, *options)
        for start, at in ((1, 302), (1, 305), (3, 304), (8, 312)):
            wide = torch.full((2, 700), torch.nan, dtype=dtype, device=DEVICE)
            rows = wide[:, start : start + 301], wide[:, at + start : at + start + 301]
            rows[0].copy_(first)
            rows[1].copy_(second)
            ours = OPS.pair_loss_and_grad(*rows, labels, None, *options)
            inside = OPS.pair_loss_and_grad_(*rows, labels, None, *options)
            tolerance = 1e-12 if dtype == torch.float64 else 2e-6
            for a, b in zip((*ours, *inside, *rows), (*true, *true[:4], *true[4:]), strict=True):
                narrow = max(tolerance, 2 * ROUNDING[dtype]) if a.dtype == dtype else tolerance
                torch.testing.assert_close(a, b, rtol=narrow, atol=tolerance)
            assert wide.isnan().sum() == 2 * (700 - 602), "written outside the rows"


def excluded_classes_nan_and_ignored_pairs() -> None:
    for similarity in ("kl", "ce", "mmd", "none"):
        spec = PairLossSpec(similarity=similarity)
        case = make_case(4, 1100, 1.0)
        case.labels.copy_(torch.tensor([0, 1099, 3, -1]))
        case.first[:, 100:900] = case.second[:, 100:900] = -torch.inf
        case.first[3] = torch.nan
        kept = Case(*(z[:3] for z in (case.first, case.second, case.labels)))
        check(kept, torch.float32, 2.0, spec)
        poisoned = case.second.to(DEVICE, torch.float32)
        poisoned[1, 1000] = torch.nan
        options = (CE, SIMILARITY, 0, *fused.choices(spec, 2.0))
        _, values, _, tops, *grads = OPS.pair_loss_and_grad(
            case.first.to(DEVICE, torch.float32), poisoned, case.labels.to(DEVICE), None, *options
        )
        assert values[[0, 2]].isfinite().all()
        assert values[1, 1].isnan()
        assert tops[1, 1] == -1
        assert not values[3].any()
        assert grads[1][1].isnan().any()
        for grad in grads:
            assert grad[[0, 2]].isfinite().all()
            assert not grad[3].any()


def temperatures() -> None:
    """Those whose powers save an exponential, others, and targets too far off for it."""
    for T in (1.0, 2.0, 2.5, 3.0, 4.0):
        for dtype in (torch.bfloat16, torch.float16):
            for similarity, scale in (("kl", 2.0), ("ce", 40.0)):
                case = make_case(2, 301, scale, dtype=dtype)
                check(case, dtype, T, PairLossSpec(similarity=similarity))
            cosines = make_case(2, 301, 0.1, dtype=dtype)
            cosines.first[0, cosines.labels[0]] = 0.9375  # with the margin far below itself
            spec = PairLossSpec(logit_scale=64.0, margin_angle_rad=1.0, margin_cosine=0.3)
            check(cosines, dtype, T, spec)


def maxima_anywhere() -> None:
    """Scores that rise along the row, and largest ones that are many or the target's."""
    C = 5000
    rise = torch.linspace(-60.0, 60.0, C, dtype=torch.float64).expand(4, C)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        case = make_case(4, C, 1.0, seed=1)
        case.labels.copy_(torch.tensor([0, 1029, 2500, C - 1]))
        check(Case(rise, case.second, case.labels).to(dtype).to(torch.float64), dtype, 2.0, SPEC)
        flat = torch.zeros(4, C, dtype=torch.float64)
        few = flat.clone()
        few[:, 1029:1040] = few[0, 4000:] = 2.0
        check(Case(flat, few, case.labels), dtype, 2.0, SPEC)


def all_ignored() -> None:
    case = make_case(3, 40, 1.0)
    case.labels.fill_(-1)
    total, *rest = OPS.pair_loss_and_grad(
        *(z.to(DEVICE, torch.float32) for z in (case.first, case.second)),
        *(case.labels.to(DEVICE), None, 1.0, 1.0, 1),
        *fused.choices(PairLossSpec(), 2.0),
    )  # fmt: skip
    assert total == 0
    assert not any(x.any() for x in (rest[0], *rest[3:]))


def streams_of_chunks() -> None:
    """Chunks of every alignment, on three states that are merged; gradients in place."""
    for similarity in ("kl", "mmd"):
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
            spec = PairLossSpec(similarity=similarity, label_smoothing=0.1)
            choices = fused.choices(spec, 2.5)
            case = make_case(4, 1500, 3.0, dtype=dtype, ignored=True).to(dtype)
            stream(case, [0, 1, 37, 701, 704, 1500], choices, tolerance)
    print("agreed")


def stream(case: Case, cuts: list[int], choices: tuple, tolerance: float) -> None:
    margins = torch.rand(len(case.labels), 6, dtype=case.first.dtype).to(DEVICE)
    case = Case(*(x.to(DEVICE) for x in (case.first, case.second, case.labels)))
    first, second, labels = case.first.clone(), case.second.clone(), case.labels
    dtype, B, C = first.dtype, len(labels), first.shape[1]
    chunks = [(a, (first[:, a:b], second[:, a:b])) for a, b in pairwise(cuts)]
    states = [registration.empty_state(B, dtype, first.device) for _ in range(3)]
    for i, (a, scores) in enumerate(chunks):
        OPS.pair_loss_accumulate_(*states[i % 3], *scores, labels, a, *choices)
    merged = OPS.pair_loss_merge(*(torch.stack(x) for x in zip(*states, strict=True)), *choices)
    values, extras, tops, stats = OPS.pair_loss_finish(*merged, labels, C, *choices, margins)
    if choices[1] == fused.KINDS["mmd"]:
        sums = torch.zeros(B, 2, dtype=dtype, device=DEVICE)
        for a, scores in chunks:
            OPS.pair_loss_mmd_accumulate_(sums, *scores, labels, a, stats, *choices)
        OPS.pair_loss_mmd_finish_(stats, values, sums, labels, *choices)
    up = torch.rand(B, 3, dtype=dtype, device=DEVICE)
    true = OPS.pair_loss(case.first, case.second, labels, *choices, margins)
    grads = OPS.pair_loss_backward(up, case.first, case.second, labels, true[3], *choices)
    for a, scores in chunks:
        OPS.pair_loss_gradient_(*scores, labels, a, up, stats, C, *choices)
    for a, b in zip((values, extras, tops, first, second), (*true[:3], *grads), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def run_all() -> None:
    every_kind_scale_and_type()
    margins_and_scales()
    margins_of_each_image()
    odd_sizes_and_labels_at_every_edge()
    rows_of_any_alignment()
    excluded_classes_nan_and_ignored_pairs()
    temperatures()
    maxima_anywhere()
    all_ignored()
    print("agreed")


def long_rows() -> None:
    """More runs than stay on chip, and more pairs than a wave holds, on a device made small."""
    for similarity in ("kl", "ce", "mmd"):
        case = make_case(3, 5003, 2.0, ignored=True)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            check(case.to(dtype).to(torch.float64), dtype, 2.0, PairLossSpec(similarity=similarity))
    print("agreed")
