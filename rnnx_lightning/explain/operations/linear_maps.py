"""Operations that are linear in the input: matrix products, convolutions, sums, averages."""

from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.elementwise import is_zero
from rnnx_lightning.explain.linear import Operation, held
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.averages import weighted
from rnnx_lightning.explain.operations.products import product_of_gates, product_of_signals
from rnnx_lightning.explain.operations.table import SCALES, aten, records
from rnnx_lightning.explain.operations.tokens import of_one_token
from rnnx_lightning.explain.rows import MOVE, Movement
from rnnx_lightning.explain.tape import Tape

MATRIX_PRODUCT = Operation(lambda a, w: a @ w, beside=(-1, 0), matrix=lambda w: w.mT)


@records("mm bmm mv dot vdot matmul.default")
def matrix_product(tape: Tape, func: Any, one: Tensor, two: Tensor) -> Tensor:
    """A matrix product x @ W or W @ x; W may be attention weights, which get no relevance."""
    one, two = dense(one), dense(two)
    return product(tape, func, one, two, func(one, two), None)


def dense(tensor: Tensor) -> Tensor:
    """A sparse matrix, as of a graph's edges, as a plain one."""
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _all_alike(node: Node | None, values: Tensor, dim: int) -> bool:
    """Whether attention weights weigh constants that are all the same, such as a start state: a constant."""
    assert node is not None  # the other factor depends on the input
    dim = max(dim, -values.dim())
    return node.weights and bool((values == values.narrow(dim, 0, 1)).all())


def product(tape: Tape, func: Any, one: Tensor, two: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Record one @ two + bias."""
    first, second = tape.find(one), tape.find(two)
    gates = [node for node in (first, second) if node is not None and node.gate]
    if first is not None and second is not None and len(gates) == 2 and first.magnitude == second.magnitude:
        return product_of_gates(tape, func, value, (first, one), (second, two), func_of(func))
    for node in gates:
        node.logits = None
    if (first is None and _all_alike(second, one, -1)) or (second is None and _all_alike(first, two, -2)):
        return value
    if first is None or (second is not None and first.gate and (not second.gate or second.magnitude)):
        operation = Operation(
            lambda x, w: func_of(func)(w, x),
            lambda f, w, _: w.mT @ f if w.dim() > 1 else torch.outer(w, f),
            features=-2,
        )
        if one.dim() == 1 or two.dim() == 1:
            operation = Operation(lambda x, w: func_of(func)(w, x), features=-1 if two.dim() == 1 else -2)
        return tape.linear(func, two, operation, held(one) if first is not None else one, bias, value)
    if first is not None and second is None and bias is None and of_one_token(first, one):
        return tape.note(value, Node(MOVE, (first,), value, Movement(lambda part: part, at_token(one))))
    if second is not None and not second.gate:
        return product_of_signals(tape, func, value, (first, one), (second, two), func_of(func))
    weight = held(two) if second is not None else two
    if two.dim() == 2 and one.dim() == 2:
        return tape.linear(func, one, MATRIX_PRODUCT, weight, bias, value)
    if two.dim() == 3:
        batched = Operation(lambda x, w: x @ w, lambda f, w, _: f @ w.mT, features=-1)
        return tape.linear(func, one, batched, weight, bias, value)
    return tape.linear(func, one, Operation(lambda x, w: func_of(func)(x, w), features=-1), weight, bias, value)


def at_token(vectors: Tensor) -> Any:
    """From the relevance of what is looked up in a table to that of the one-hot vectors it is looked up with."""
    return lambda part: part.sum(-1, keepdim=True) * vectors


def func_of(func: Any) -> Any:
    """The matrix product of an operation that also adds."""
    return {aten.addmm.default: torch.mm, aten.baddbmm.default: torch.bmm, aten.addmv.default: torch.mv}.get(
        func, func
    )


@records("addmm.default baddbmm.default addmv.default")
def add_product(
    tape: Tape, func: Any, bias: Tensor, one: Tensor, two: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """A matrix product plus a bias."""
    plain = func_of(func)
    if alpha != 1 or beta != 1 or tape.find(bias) is not None:
        return weighted_sum(tape, tape.record(PLAIN[plain], (one, two), {}), bias, alpha, beta)
    return product(tape, func, dense(one), dense(two), func(bias, one, two), bias)


def weighted_sum(tape: Tape, made: Tensor, bias: Tensor, alpha: float, beta: float) -> Tensor:
    """A product times alpha plus a bias times beta, which is not read if beta is 0."""
    made = tape.record(aten.mul.Scalar, (made, alpha), {})
    if beta == 0:
        return made
    return tape.record(aten.add.Tensor, (made, tape.record(aten.mul.Scalar, (bias, beta), {})), {})


PLAIN = {torch.mm: aten.mm.default, torch.bmm: aten.bmm.default, torch.mv: aten.mv.default}


@records("addbmm.default")
def add_summed_product(
    tape: Tape, func: Any, bias: Tensor, one: Tensor, two: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """A sum of matrix products, plus a bias."""
    made = tape.record(aten.sum.dim_IntList, (tape.record(aten.bmm.default, (one, two), {}), [0]), {})
    return weighted_sum(tape, made, bias, alpha, beta)


@records("addr.default")
def add_outer_product(
    tape: Tape, func: Any, bias: Tensor, one: Tensor, two: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """The products of all entries of two vectors, plus a bias."""
    column = tape.record(aten.unsqueeze.default, (one, 1), {})
    return weighted_sum(tape, tape.record(aten.mul.Tensor, (column, two), {}), bias, alpha, beta)


@records("_linalg_solve_ex.default linalg_solve_triangular.default cholesky_solve.default")
def solved(tape: Tape, func: Any, one: Tensor, two: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A constant system of equations, solved for what depends on the input: a linear map."""
    value = func(one, two, *args, **kwargs)
    first = value if isinstance(value, Tensor) else value[0]
    matrix, right = (two, one) if func is aten.cholesky_solve.default else (one, two)
    if tape.find(matrix) is not None:
        tape.refused(func, first, "Its matrix must not depend on the input.", one, two)
        return value
    on_left = args[0] if args and func is aten._linalg_solve_ex.default else kwargs.get("left", True)
    if right.dim() < 2 or on_left is False:
        tape.refused(func, first, "Write it as a product with the inverse matrix.", one, two)
        return value
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand(matrix.shape)
    inverse = func(*((unit, matrix) if right is one else (matrix, unit)), *args, **kwargs)
    inverse = inverse if isinstance(inverse, Tensor) else inverse[0]
    made = tape.stand_in(first, tape.record(aten.matmul.default, (inverse, right), {}))
    return made if isinstance(value, Tensor) else (made, *value[1:])


@records(
    "_scaled_dot_product_flash_attention_for_cpu.default _scaled_dot_product_flash_attention.default "
    "_scaled_dot_product_efficient_attention.default _scaled_dot_product_cudnn_attention.default"
)
def fused_attention(
    tape: Tape, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Fused attention, where the network chooses it: matrix products and a softmax."""
    results = func(query, key, value, *args, **kwargs)
    given = dict(zip([a.name for a in func._schema.arguments[3:]], args, strict=False)) | kwargs
    mask, scale = given.get("attn_mask", given.get("attn_bias")), given.get("scale")
    if given.get("dropout_p") or query.shape[1] != key.shape[1]:
        tape.refused(
            func, results[0], "Run it with torch.nn.attention.sdpa_kernel(SDPBackend.MATH).", query, key, value
        )
        return results
    scores = tape.record(aten.matmul.default, (query, tape.record(aten.transpose.int, (key, -2, -1), {})), {})
    scores = tape.record(aten.mul.Scalar, (scores, query.shape[-1] ** -0.5 if scale is None else scale), {})
    if mask is not None:
        scores = tape.record(aten.add.Tensor, (scores, mask), {})
    if given.get("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = tape.record(aten.masked_fill.Scalar, (scores, later, -torch.inf), {})
    weights = tape.record(aten._softmax.default, (scores, -1, False), {})
    return (tape.stand_in(results[0], tape.record(aten.matmul.default, (weights, value), {})), *results[1:])


SCALES.add(fused_attention)


@records("conv_tbc.default")
def convolution_time_first(
    tape: Tape, func: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int = 0
) -> Tensor:
    """A convolution along the first dimension."""
    value = func(x, weight, bias, padding)
    x = tape.record(aten.permute.default, (x, [1, 2, 0]), {})
    args = (x, weight.permute(2, 1, 0), bias, [1], [padding], [1], False, [0], 1)
    return tape.stand_in(
        value, tape.record(aten.permute.default, (convolution(tape, CONVOLUTION, *args), [2, 0, 1]), {})
    )


@records("_sparse_addmm.default")
def add_sparse_product(
    tape: Tape, func: Any, bias: Tensor, one: Tensor, two: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """A product with a sparse matrix, such as a graph's, plus a bias."""
    args = (dense(bias), dense(one), dense(two))
    if tape.find(bias) is None and not args[0].any():
        beta = 0
    return tape.record(aten.addmm.default, args, {"beta": beta, "alpha": alpha})


@records("_trilinear.default")
def bilinear(tape: Tape, func: Any, one: Tensor, weight: Tensor, two: Tensor, *rest: Any) -> Tensor:
    """`nn.Bilinear`: a linear map of the first, times the second."""
    if (one.dim(), weight.dim(), two.dim()) != (2, 3, 2) or rest[:4] != ([1, 3], [0], [1, 2], [2, 3]):
        return tape.refused(func, func(one, weight, two, *rest), "Write it with torch.einsum.", one, two)
    for x, given, of_given in ((one, two, "oij,bj->bio"), (two, one, "oij,bi->bjo")):
        if tape.find(given) is None and tape.find(weight) is None:  # a matrix for each example
            matrices = torch.einsum(of_given, weight, given)
            row = tape.record(aten.unsqueeze.default, (x, 1), {})
            return tape.record(aten.squeeze.dim, (tape.record(aten.bmm.default, (row, matrices), {}), 1), {})
    outputs, inputs, others = weight.shape
    matrix = weight.permute(1, 0, 2).reshape(inputs, -1)
    mapped = tape.record(aten.mm.default, (one, matrix), {})
    mapped = tape.record(aten.view.default, (mapped, [-1, outputs, others]), {})
    factors = tape.record(aten.unsqueeze.default, (two, 1), {})
    return tape.record(aten.sum.dim_IntList, (tape.record(aten.mul.Tensor, (mapped, factors), {}), [2]), {})


@records("upsample_bicubic2d _upsample_bicubic2d_aa _upsample_bilinear2d_aa")
def resized(tape: Tape, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Interpolation by weights of either sign, of a few rows and columns around each pixel."""
    value = func(x, *args, **kwargs)
    overload = func.overloadpacket.default
    corners, scales = args[1], [*args[2:], *kwargs.values()]
    factors = scales[0] if scales and isinstance(scales[0], list | tuple) else scales
    height, width = (factors if factors else (None, None))[:2]
    rows, along_rows = taps(
        lambda unit: overload(unit[..., None].repeat(1, 1, 1, 2), [value.shape[-2], 2], corners, height, None),
        x,
        -2,
    )
    columns, along_columns = taps(
        lambda unit: (
            overload(unit[..., None, :].repeat(1, 1, 2, 1), [2, value.shape[-1]], corners, None, width).mT
        ),
        x,
        -1,
    )
    weight = along_rows[:, None, :, None] * along_columns[None, :, None]  # (H, W, rows, columns)

    def apply(part: Tensor, weights: Tensor) -> Tensor:
        return (part[..., rows[:, None, :, None], columns[None, :, None]] * weights).sum((-2, -1))

    return tape.linear(func, x, Operation(apply), weight, None, value)


def taps(resize: Any, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Which entries along a dimension each new entry is made of, and their weights (new, taps)."""
    unit = torch.eye(x.shape[dim], dtype=x.dtype, device=x.device).unsqueeze(0)
    matrix = resize(unit)[0, :, :, 0].T  # of two equal lines; torch has errors where there is only one
    count = int((matrix != 0).sum(1).max())
    places = (matrix != 0).to(torch.uint8).topk(count, 1).indices
    return places, matrix.gather(1, places)


@records("grid_sampler_2d.default grid_sampler_3d.default")
def sampled(tape: Tape, func: Any, x: Tensor, grid: Tensor, mode: int, *args: Any) -> Tensor:
    """Interpolation at the points of a grid; the grid gets no relevance, like attention weights."""
    places = held(grid)
    if tape.find(x) is None or mode == 2:
        value = func(x, grid, mode, *args)
        if tape.find(x) is None and is_zero(x):  # a start state of zeros: a constant, wherever it is read
            return value
        advice = (
            "In mode bilinear or nearest, what is sampled must depend on the input; the grid gets no relevance."
        )
        return tape.refused(func, value, advice, x, grid)
    return total(tape, lambda part: func(part, places.to(part.dtype), mode, *args), x)


CONVOLUTION = aten.convolution.default


@records("convolution.default")
def convolution(
    tape: Tape,
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    outside: list[int],
    groups: int,
) -> Tensor:
    """Convolutions and transposed convolutions of any dimension; weights that are scales get no relevance."""
    rest = (stride, padding, dilation, transposed, outside, groups)

    def convolve(a: Tensor, w: Tensor) -> Tensor:
        return func(a, w, None, *rest)

    def transpose(factors: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        like = _unread(shape, factors, w)
        return aten.convolution_backward(factors, like, w, None, *rest, [True, False, False])[0]

    first, second = tape.find(x), tape.find(weight)
    shaped = None if bias is None else bias.reshape(-1, *[1] * (weight.dim() - 2))
    if second is None or (first is not None and second.gate and not (first.gate and not first.magnitude)):
        beside = (1, 1) if groups == 1 and not transposed else None
        operation = Operation(convolve, transpose, beside, features=1)
        kept = weight if second is None else held(weight)
        return tape.linear(func, x, operation, kept, shaped, func(x, weight, bias, *rest))
    if shaped is not None:
        return tape.record(aten.add.Tensor, (convolution(tape, func, x, weight, None, *rest), shaped), {})
    value = convolve(x, weight)
    if first is None or (first.gate and not second.gate):
        return tape.linear(func, weight, Operation(lambda w, a: convolve(a, w)), held(x), None, value)
    factors = ((first, x), (second, weight))
    if first.gate:
        return product_of_gates(tape, func, value, *factors, convolve)
    return product_of_signals(tape, func, value, *factors, convolve)


@records(
    "sum.default sum.dim_IntList nansum mean.default mean.dim avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d cumsum.default upsample_linear1d.default "
    "upsample_bilinear2d.default upsample_trilinear3d.default upsample_bilinear2d.vec unfold_backward.default "
    "trace.default"
)
def total(tape: Tape, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sums, means, average pooling, interpolation: linear maps with weights >= 0."""
    value = func(x, *args, **kwargs)
    node = tape.find(x)
    if node is not None and node.gate and node.reason is not None:
        return tape.gate_of(value, node)
    if node is not None and not (value.is_floating_point() or value.is_complex()):  # as one-hot vectors may be
        dtype = node.dtype if node.dtype.is_floating_point else torch.get_default_dtype()
        numbers = tape.record(aten._to_copy.default, (x,), {"dtype": dtype})
        tape.mark(value, tape.find(total(tape, lambda part: func(part, *args, **kwargs), numbers)))
        return value
    transpose = None
    if func in (aten.mean.dim, aten.sum.dim_IntList, aten.sum.default, aten.mean.default):
        mean = func in (aten.mean.dim, aten.mean.default)
        transpose = _spread_back(x, value, args[0] if args else kwargs.get("dim"), mean)
    elif func in BACKWARD:
        transpose = _pooled_back(BACKWARD[func], args, kwargs)
    changed = weighted(func, x, value, args, kwargs)
    operation = Operation(lambda a, _: func(a, *args, **kwargs), transpose, weighted=changed)
    return tape.linear(func, x, operation, None, None, value)


def reduced(x: Tensor, dim: Any) -> list[int]:
    """The dimensions that a sum or norm over `dim` (an int, several, or none for all) takes together."""
    dims = [dim] if isinstance(dim, int) else dim
    return [d % x.dim() for d in dims] if dims and x.dim() else list(range(x.dim()))


def _spread_back(x: Tensor, value: Tensor, dims: list[int] | None, mean: bool) -> Any:
    """The transpose of a sum or mean over dimensions."""
    summed = reduced(x, dims)
    weight = value.numel() / x.numel() if mean and x.numel() else 1.0

    def transpose(factors: Tensor, _: Any, size: torch.Size) -> Tensor:
        kept = [1 if d in summed else length for d, length in enumerate(size)]
        return (factors * weight if mean else factors).reshape(kept).expand(size)

    return transpose


BACKWARD = {
    aten.avg_pool2d.default: aten.avg_pool2d_backward.default,
    aten.avg_pool3d.default: aten.avg_pool3d_backward.default,
    aten._adaptive_avg_pool2d.default: aten._adaptive_avg_pool2d_backward.default,
}


def _pooled_back(backward: Any, args: Any, kwargs: Any) -> Any:
    """The transpose of average pooling."""
    if backward is aten._adaptive_avg_pool2d_backward.default:
        return lambda factors, _, size: backward(factors, _unread(size, factors))
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = (
        dict(zip(names, ([], [], 0, False, True, None), strict=True))
        | dict(zip(names, args, strict=False))
        | kwargs
    )
    rest = [given[name] if name != "padding" or given[name] else [0] for name in names]
    return lambda factors, _, size: backward(factors, _unread(size, factors), *rest)


def _unread(size: torch.Size, *beside: Tensor) -> Tensor:
    """An input that a backward pass asks for and does not read; in another layout it would be copied first."""
    last = any(t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in beside)
    layout = torch.channels_last if last and len(size) == 4 else torch.contiguous_format
    return torch.empty(size, dtype=beside[0].dtype, device=beside[0].device, memory_format=layout)
