"""Complex numbers, Fourier transforms among them: real linear maps of pairs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnx_lightning.explain.operations import arithmetic
from rnnx_lightning.explain.operations.table import TABLE, R, aten, overloads, records
from rnnx_lightning.explain.operations.writes import copy_into
from rnnx_lightning.explain.overwriting import pair_of_view
from rnnx_lightning.explain.pairs import is_complex, pair_of, paired, part_of
from rnnx_lightning.explain.tape import COMPLEX, Tape

LONGEST = 4096  # a transform is a matrix here


def records_complex(names: str) -> Callable[[R], R]:
    """Put a recorder for complex numbers into the table."""

    def put(recorder: R) -> R:
        for operation in overloads(names):
            TABLE[operation, COMPLEX] = recorder
        return recorder

    return put


records_complex("copy.default")(copy_into)

# -- from real numbers, and to them


@records("view_as_complex.default")
def from_pair(tape: Tape, func: Any, pair: Tensor) -> Tensor:
    """Pairs as complex numbers."""
    return paired(tape, func(pair), pair)


@records("complex.default")
def from_parts(tape: Tape, func: Any, real: Tensor, imaginary: Tensor) -> Tensor:
    """Complex numbers from their parts."""
    value = func(real, imaginary)
    real, imaginary = (tape.record(aten.expand.default, (part, value.shape), {}) for part in (real, imaginary))
    return paired(tape, value, tape.record(aten.stack.default, ([real, imaginary], -1), {}))


@records("polar.default")
def from_length(tape: Tape, func: Any, length: Tensor, angle: Tensor) -> Tensor:
    """Complex numbers of a length and an angle, which is a constant or a scale."""
    return _turned(tape, func(length, angle), length, angle)


def _turned(tape: Tape, value: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    unit = [tape.record(part, (angle,), {}) for part in (aten.cos.default, aten.sin.default)]
    real, imaginary = (tape.record(aten.mul.Tensor, (length, part), {}) for part in unit)
    return _joined(tape, value, real, imaginary)


@records_complex("exp.default")
def exponential(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """An exponential of complex scales: a length and an angle."""
    real, imaginary = (part_of(tape, value, k) for k in (0, 1))
    return _turned(tape, func(value), tape.record(aten.exp.default, (real,), {}), imaginary)


@records_complex("view_as_real.default")
def to_pair(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """Complex numbers as pairs."""
    return tape.stand_in(func(value), pair_of(tape, value))


@records_complex("abs.default")
def modulus(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """The length of a pair."""
    length = tape.record(aten.linalg_vector_norm.default, (pair_of(tape, value), 2, [-1]), {})
    return tape.stand_in(func(value), length)


@records_complex("_to_copy.default")
def copy(tape: Tape, func: Any, value: Tensor, **kwargs: Any) -> Tensor:
    """Another type or device of complex numbers."""
    result = func(value, **kwargs)
    if not result.is_complex():
        return tape.refused(func, result, "Take the real part: x.real.", value)
    kept = {name: given for name, given in kwargs.items() if name not in ("dtype", "memory_format")}
    kept["dtype"] = torch.view_as_real(result.new_empty(0)).dtype
    return paired(tape, result, tape.record(aten._to_copy.default, (pair_of(tape, value),), kept))


# -- what is done to both parts


@records_complex(
    "view.default _unsafe_view.default reshape.default _reshape_alias.default unsqueeze.default "
    "squeeze.default squeeze.dim squeeze.dims clone.default alias.default contiguous.default permute.default "
    "t.default flip.default transpose.int gather.default expand.default select.int slice.Tensor "
    "diagonal.default narrow.default roll.default repeat.default unfold.default index.Tensor "
    "index_select.default constant_pad_nd.default cat.default stack.default sum.default sum.dim_IntList "
    "mean.default mean.dim cumsum.default add.Tensor sub.Tensor rsub.Scalar add.Scalar sub.Scalar neg.default "
    "where.self masked_fill.Scalar split.Tensor split_with_sizes.default unbind.int slice_scatter.default "
    "select_scatter.default tril.default triu.default mul.Scalar div.Scalar index_put.default scatter.src "
    "scatter.value index_copy.default index_fill.int_Scalar index_add.default scatter_add.default"
)
def on_parts(tape: Tape, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Moves, sums and the like: of the real and the imaginary part alike."""
    if func in ADDITIONS:
        args = tuple(_as_complex(arg) for arg in args[:2]) + args[2:]
    elif func in FILLS:
        args = args[:2] + tuple(_as_complex(arg) for arg in args[2:])
    parts = [tape.record(func, tuple(part_of(tape, arg, k) for arg in args), kwargs) for k in (0, 1)]
    value = func(*args, **kwargs)
    if isinstance(value, Tensor):
        return _joined(tape, value, parts[0], parts[1])
    return [_joined(tape, v, a, b) for v, a, b in zip(value, *parts, strict=True)]


ADDITIONS = {aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.add.Scalar, aten.sub.Scalar}
FILLS = {
    aten.masked_fill.Scalar,
    aten.constant_pad_nd.default,
    aten.scatter.value,
    aten.index_fill.int_Scalar,
}


def _as_complex(value: Any) -> Any:
    return complex(value) if isinstance(value, int | float) else value


def _joined(tape: Tape, value: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    return paired(tape, value, tape.record(aten.stack.default, ([real, imaginary], -1), {}))


@records_complex("_neg_view.default resolve_neg.default")
def negative(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """Both parts with another sign, or with the sign that they have in memory."""
    pair = pair_of(tape, value)
    pair = tape.record(aten.neg.default, (pair,), {}) if func is aten._neg_view.default else pair
    return paired(tape, func(value), pair)


@records_complex("_conj.default _conj_physical.default conj_physical.default")
def conjugate(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """The imaginary part with another sign."""
    pair = pair_of(tape, value)
    signs = torch.tensor([1.0, -1.0], dtype=pair.dtype, device=pair.device)
    return paired(tape, func(value), tape.record(aten.mul.Tensor, (pair, signs), {}))


@records_complex("resolve_conj.default")
def resolve(tape: Tape, func: Any, value: Tensor) -> Tensor:
    """Conjugates in memory."""
    return paired(tape, func(value), pair_of(tape, value))


@records_complex("as_strided.default")
def as_strided(tape: Tape, func: Any, value: Tensor, size: Any, stride: Any, offset: int | None = None) -> Tensor:
    """Entries are read where a view of the memory lies."""
    start = int(value.storage_offset() if offset is None else offset)
    view = tape.record(aten.as_strided.default, pair_of_view(tape, value, size, stride, start), {})
    return paired(tape, func(value, size, stride, offset), view)


# -- products


@records_complex("mul.Tensor mm.default bmm.default mv.default dot.default matmul.default")
def multiply(tape: Tape, func: Any, one: Any, two: Any) -> Tensor:
    """(a + ib)(c + id) = ac - bd + i(ad + bc)."""
    value = func(one, two)
    (a, b), (c, d) = ([part_of(tape, factor, k) for k in (0, 1)] for factor in (one, two))

    def times(x: Any, y: Any) -> Any:
        return tape.record(func, (x, y), {})

    if not is_complex(two):
        return _joined(tape, value, times(a, c), times(b, c))
    if not is_complex(one):
        return _joined(tape, value, times(a, c), times(a, d))
    real = tape.record(aten.sub.Tensor, (times(a, c), times(b, d)), {})
    return _joined(tape, value, real, tape.record(aten.add.Tensor, (times(a, d), times(b, c)), {}))


@records_complex("vdot.default")
def conjugate_product(tape: Tape, func: Any, one: Tensor, two: Tensor) -> Tensor:
    """The same, of a conjugate and a complex vector."""
    return multiply(tape, aten.dot.default, tape.record(aten._conj.default, (one,), {}), two)


records_complex("addcmul.default")(arithmetic.add_product)
records_complex("addcdiv.default")(arithmetic.add_quotient)
records_complex("lerp.Tensor lerp.Scalar")(arithmetic.interpolate)


@records_complex("addmm.default baddbmm.default")
def add_product(
    tape: Tape, func: Any, bias: Any, one: Tensor, two: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """A product of complex matrices, plus a bias: a linear layer of complex numbers."""
    plain = aten.mm.default if func is aten.addmm.default else aten.bmm.default
    product = multiply(tape, plain, one, two)
    if (alpha, beta) != (1, 1):
        return tape.refused(
            func, func(bias, one, two, beta=beta, alpha=alpha), "Write alpha and beta out.", one, two
        )
    return tape.record(aten.add.Tensor, (bias, product), {})


@records_complex("pow.Tensor_Scalar")
def power(tape: Tape, func: Any, value: Tensor, exponent: Any) -> Tensor:
    """A square of complex numbers: a product."""
    if exponent != 2:
        return tape.refused(func, func(value, exponent), "Only squares of complex numbers have a rule.", value)
    return multiply(tape, aten.mul.Tensor, value, value)


@records_complex("linalg_vector_norm.default")
def norm(
    tape: Tape, func: Any, value: Tensor, order: Any = 2, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Tensor:
    """The norm of the lengths of pairs."""
    result = func(value, order, dim, keepdim, **kwargs)
    return tape.stand_in(
        result, tape.record(func, (modulus(tape, aten.abs.default, value), order, dim, keepdim), {})
    )


@records_complex("div.Tensor")
def divide(tape: Tape, func: Any, one: Tensor, two: Any) -> Tensor:
    """Division by a constant, or by a real scale."""
    if is_complex(two):
        if isinstance(two, Tensor) and tape.find(two) is not None:
            return tape.refused(func, func(one, two), "Only division by a constant has a rule.", two)
        return multiply(tape, aten.mul.Tensor, one, 1 / two)
    parts = [tape.record(func, (part_of(tape, one, k), two), {}) for k in (0, 1)]
    return _joined(tape, func(one, two), parts[0], parts[1])


# -- Fourier transforms


def along(tape: Tape, x: Tensor, dim: int, matrix: Tensor, pairs: tuple[bool, bool]) -> Tensor:
    """A matrix times what lies along a dimension of a real tensor, or along one of pairs and the pair itself.

    Args:
        tape: what is written.
        x: (..., n, ...) or (..., n, ..., 2).
        dim: of the tensor without its pair.
        matrix: (n, m), (2 n, m), (n, 2 m) or (2 n, 2 m).
        pairs: whether x is of pairs, and whether the result is.
    """
    reads, gives = pairs
    rest = [d for d in range(x.dim() - reads) if d != dim]
    order = [*rest, dim, *([x.dim() - 1] if reads else [])]
    x = tape.record(aten.permute.default, (x, order), {})
    x = tape.record(aten.reshape.default, (x, [*(x.shape[: len(rest)]), len(matrix)]), {})
    x = tape.record(aten.matmul.default, (x, matrix), {})
    if gives:
        x = tape.record(aten.view.default, (x, [*x.shape[:-1], -1, 2]), {})
    back = [*range(dim), len(rest), *range(dim, len(rest)), *([len(rest) + 1] if gives else [])]
    return tape.record(aten.permute.default, (x, back), {})


def transform(like: Tensor, n: int, reads: bool, function: Any) -> Tensor:
    """The matrix of a real linear map, from what it does to unit vectors, complex ones if it reads pairs."""
    unit = torch.eye(n, dtype=like.dtype, device=like.device)
    rows = function(torch.complex(unit, 0 * unit)) if reads else function(unit)
    if reads:
        imaginary = function(torch.complex(0 * unit, unit))
        rows = torch.stack([rows, imaginary], 1).flatten(0, 1)
    matrix = torch.view_as_real(rows.resolve_conj()).flatten(1) if rows.is_complex() else rows
    # A 0 that was rounded to 1e-17 would take all relevance where nothing else is positive. The least other entry
    # is a sine of pi / 2 over the length.
    size = matrix.abs()
    return matrix.masked_fill_(size < size.amax() / (4 * LONGEST), 0)


def _transformed(
    tape: Tape, func: Any, value: Tensor, x: Tensor, steps: Sequence[tuple[int, int, Any, Any]]
) -> Any:
    """Several transforms one after the other; each is (dim, length, pairs, function)."""
    for dim, n, pairs, function in steps:
        if n > LONGEST:
            return tape.refused(
                func, value, f"A Fourier transform of more than {LONGEST} steps is not explained.", x
            )
        x = along(tape, x, dim, transform(x, n, pairs[0], function), pairs)
    return x


BOTH = (True, True)


@records("_fft_r2c.default")
def real_fft(tape: Tape, func: Any, x: Tensor, dims: list[int], norm: int, onesided: bool) -> Tensor:
    """The Fourier transform of real numbers: a linear map."""
    value = func(x, dims, norm, onesided)
    dims = [d % x.dim() for d in dims]
    steps = [(dims[-1], x.shape[dims[-1]], (False, True), lambda unit: func(unit, [1], norm, onesided))]
    steps += [(d, x.shape[d], BOTH, lambda unit: aten._fft_c2c(unit, [1], norm, True)) for d in dims[:-1]]
    pair = _transformed(tape, func, value, x, steps)
    return pair if pair is value else paired(tape, value, pair)


@records_complex("_fft_c2c.default")
def complex_fft(tape: Tape, func: Any, z: Tensor, dims: list[int], norm: int, forward: bool) -> Tensor:
    """The Fourier transform of complex numbers, and its inverse: linear maps."""
    value = func(z, dims, norm, forward)
    dims = [d % z.dim() for d in dims]
    steps = [(d, z.shape[d], BOTH, lambda unit: func(unit, [1], norm, forward)) for d in dims]
    pair = _transformed(tape, func, value, pair_of(tape, z), steps)
    return pair if pair is value else paired(tape, value, pair)


@records_complex("_fft_c2r.default")
def inverse_real_fft(tape: Tape, func: Any, z: Tensor, dims: list[int], norm: int, length: int) -> Tensor:
    """The inverse transform to real numbers: a linear map."""
    value = func(z, dims, norm, length)
    dims = [d % z.dim() for d in dims]
    steps = [(d, z.shape[d], BOTH, lambda unit: aten._fft_c2c(unit, [1], norm, False)) for d in dims[:-1]]
    last = dims[-1]
    steps.append((last, z.shape[last], (True, False), lambda unit: func(unit, [1], norm, length)))
    return tape.stand_in(value, _transformed(tape, func, value, pair_of(tape, z), steps))
