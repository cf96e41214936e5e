"""Vectors of float32 for kernels: what the processor does to 16, or 8, numbers at once, said outright.

LLVM makes vectors of simple loops by itself, but of short loops over several arrays rarely: it can't know that they do
not overlap. A value of these types is a vector in a register (of a processor with shorter ones, several), and each
function here is one operation on it, so that a kernel is as fast as it is written. They are for use inside of kernels
only; `array` is 1-D float32 in C order, and an index is neither checked nor counted from the end. Loads and stores take
bfloat16 too, as the uint16 that NumPy has in its place (`flat`): it is the upper half of a float32.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray
from torch import Tensor

from structmae.masking.memory import empty

_FLOAT, _INT, _SHORT = ir.FloatType(), ir.IntType(32), ir.IntType(16)


def flat(tensor: Tensor) -> NDArray[Any]:
    """A tensor of float32 or bfloat16, in C order, as kernels take it; without copying where it is."""
    line = tensor.detach().contiguous().view(-1)
    return (line.view(torch.uint16) if line.dtype == torch.bfloat16 else line).numpy()


def fresh(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """float32 or bfloat16 of this shape with anything in it, in memory that is used again (memory.py)."""
    made = torch.from_numpy(empty(tuple(shape), np.uint16 if kind == torch.bfloat16 else np.float32))
    return made.view(kind)


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of `width` float32 side by side."""

    def __init__(self, width: int):
        self.width = width
        super().__init__(f"float32x{width}")


@register_model(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager, vector):
        super().__init__(manager, vector, _of(vector.width))


def _of(width: int, kind: Any = _FLOAT) -> Any:
    return ir.VectorType(kind, width)


def _same(width: int, value: float, kind: Any = _FLOAT) -> Any:
    return ir.Constant(_of(width, kind), [value] * width)


def _pointer(context, builder, array, index, kind):
    """To array[index], as one to `kind`; `array` is (type, value)."""
    data = context.make_array(array[0])(context, builder, array[1]).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _spread(builder, value, width):
    one = builder.insert_element(ir.Constant(_of(width, value.type), ir.Undefined), value, _INT(0))
    return builder.shuffle_vector(one, one, _same(width, 0, _INT))


def _fused(builder, a, b, c):
    """a * b + c, in one rounding where the processor has that, as most do."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{a.type.count}f32"), (a, b, c)
    )


def _rounded(builder, x):
    """The upper halves of float32, to the nearest, of two equally near to the even one; what is no number stays so."""
    width = x.type.count
    bits = builder.bitcast(x, _of(width, _INT))
    half = builder.lshr(bits, _same(width, 16, _INT))
    odd = builder.and_(half, _same(width, 1, _INT))
    up = builder.add(bits, builder.add(odd, _same(width, 0x7FFF, _INT)))
    upper = builder.trunc(builder.lshr(up, _same(width, 16, _INT)), _of(width, _SHORT))
    return builder.select(builder.fcmp_unordered("uno", x, x), _same(width, 0x7FC0, _SHORT), upper)


def _loader(width: int) -> Any:
    @intrinsic
    def load(typing, array, index):
        """`width` numbers from array[index] on."""

        def emit(context, builder, signature, args):
            short = array.dtype == types.uint16
            kind = _of(width, _SHORT if short else _FLOAT)
            loaded = builder.load(_pointer(context, builder, (signature.args[0], args[0]), args[1], kind))
            loaded.align = 2 if short else 4
            if not short:
                return loaded
            upper = builder.shl(builder.zext(loaded, _of(width, _INT)), _same(width, 16, _INT))
            return builder.bitcast(upper, _of(width))

        return Vector(width)(array, types.intp), emit

    return load


def _filler(width: int) -> Any:
    @intrinsic
    def full(typing, value):
        """`width` times the same number."""

        def emit(context, builder, signature, args):
            return _spread(builder, args[0], width)

        return Vector(width)(types.float32), emit

    return full


load16, load8 = _loader(16), _loader(8)
full16, full8 = _filler(16), _filler(8)


@intrinsic
def join(typing, x, y):
    """x, then y: two of 8 as one of 16."""

    def emit(context, builder, signature, args):
        return builder.shuffle_vector(*args, ir.Constant(_of(16, _INT), list(range(16))))

    return Vector(16)(x, y), emit


def _half(first: int) -> Any:
    @intrinsic
    def half(typing, x):
        """8 lanes of 16."""

        def emit(context, builder, signature, args):
            lanes = ir.Constant(_of(8, _INT), list(range(first, first + 8)))
            return builder.shuffle_vector(args[0], args[0], lanes)

        return Vector(8)(x), emit

    return half


low, high = _half(0), _half(8)


@intrinsic
def turned(typing, x0, x1, x2, x3, x4, x5, x6, x7):
    """The transpose of 8 rows of 8, in the low half and again in the high one: row i gets lane i of each. Three steps,
    in which rows 1, 2 and 4 apart exchange lanes."""

    def emit(context, builder, signature, args):
        rows = list(args)
        for step in (1, 2, 4):
            ours = [lane if not lane & step else 16 + lane - step for lane in range(16)]
            others = [lane + step if not lane & step else 16 + lane for lane in range(16)]
            for i in range(8):
                if not i & step:
                    pair = rows[i], rows[i + step]
                    rows[i], rows[i + step] = (
                        builder.shuffle_vector(*pair, ir.Constant(_of(16, _INT), lanes)) for lanes in (ours, others)
                    )
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(x0, 8)(*[x0] * 8), emit


@intrinsic
def store(typing, array, index, x):
    """array[index], array[index + 1], ... <- x."""

    def emit(context, builder, signature, args):
        short = array.dtype == types.uint16
        stored = _rounded(builder, args[2]) if short else args[2]
        pointer = _pointer(context, builder, (signature.args[0], args[0]), args[1], stored.type)
        builder.store(stored, pointer).align = 2 if short else 4
        return context.get_dummy_value()

    return types.void(array, types.intp, x), emit


@intrinsic
def prefetch(typing, array, index):
    """Asks for array[index], and what lies in the same 64 bytes, before it is needed."""

    def emit(context, builder, signature, args):
        place = _pointer(context, builder, (signature.args[0], args[0]), args[1], ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [place.type, _INT, _INT, _INT])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [place, _INT(0), _INT(2), _INT(1)])  # to read; into the second-level cache; data
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def plus(typing, array, index, x, y):
    """array[index] * x + y."""

    def emit(context, builder, signature, args):
        factor = builder.load(_pointer(context, builder, (signature.args[0], args[0]), args[1], _FLOAT))
        return _fused(builder, _spread(builder, factor, args[2].type.count), args[2], args[3])

    return x(array, types.intp, x, x), emit


def _binary(operation: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def made(typing, x, y):
        def emit(context, builder, signature, args):
            return operation(builder, *args)

        return x(x, x), emit

    return made


def _larger(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _choose(builder, condition, x, y):
    return builder.select(builder.fcmp_ordered(">", condition, _same(condition.type.count, 0.0)), x, y)


add = _binary(lambda builder, x, y: builder.fadd(x, y))
sub = _binary(lambda builder, x, y: builder.fsub(x, y))
mul = _binary(lambda builder, x, y: builder.fmul(x, y))
div = _binary(lambda builder, x, y: builder.fdiv(x, y))
larger = _binary(_larger)


@intrinsic
def fused(typing, x, y, z):
    """x * y + z."""

    def emit(context, builder, signature, args):
        return _fused(builder, *args)

    return x(x, x, x), emit


@intrinsic
def where_positive(typing, condition, x, y):
    """x in the lanes where condition > 0, else y."""

    def emit(context, builder, signature, args):
        return _choose(builder, *args)

    return x(condition, x, y), emit


@intrinsic
def store_positive(typing, array, index, x):
    """array[index] <- one bit a lane: whether it is above 0. `array` is uint16."""

    def emit(context, builder, signature, args):
        above = builder.fcmp_ordered(">", args[2], _same(16, 0.0))
        builder.store(
            builder.bitcast(above, _SHORT), _pointer(context, builder, (signature.args[0], args[0]), args[1], _SHORT)
        )
        return context.get_dummy_value()

    return types.void(array, types.intp, x), emit


@intrinsic
def where_bits(typing, array, index, x, y):
    """x in the lanes whose bit of array[index] is set, else y: of what `store_positive` stored."""

    def emit(context, builder, signature, args):
        bits = builder.load(_pointer(context, builder, (signature.args[0], args[0]), args[1], _SHORT))
        return builder.select(builder.bitcast(bits, _of(16, ir.IntType(1))), args[2], args[3])

    return x(array, types.intp, x, x), emit


@intrinsic
def where_before(typing, lane, x, y):
    """x in the lanes before this one, else y."""

    def emit(context, builder, signature, args):
        lane, x, y = args
        width = x.type.count
        first = _spread(builder, builder.trunc(lane, _INT), width)
        before = builder.icmp_signed("<", ir.Constant(first.type, list(range(width))), first)
        return builder.select(before, x, y)

    return x(types.intp, x, y), emit


# 2**f for -0.5 <= f <= 0.5, by powers from 0 on: the largest relative error is the least possible, given that 2**0 = 1.
_POWERS = (
    1.0,
    0.6931470036506653,
    0.24022242426872253,
    0.05550733581185341,
    0.009671512991189957,
    0.001326472731307149,
)
_ROUND = 12582912.0  # 1.5 * 2**23: after adding it the last bits are the number rounded to a whole one


@intrinsic
def exp2(typing, x):
    """2**x, for x up to 127; 0 at x = -127 and below, whose exponent is all zeros. Relative error 2e-7 from -126 on."""

    def emit(context, builder, signature, args):
        width = args[0].type.count
        x = _larger(builder, _same(width, -127.0), args[0])  # in this order, what is no number stays so
        rounding = _same(width, _ROUND)
        rounded = builder.fadd(x, rounding)
        rest = builder.fsub(x, builder.fsub(rounded, rounding))
        power = _same(width, _POWERS[-1])
        for factor in _POWERS[-2::-1]:
            power = _fused(builder, power, rest, _same(width, factor))
        whole = builder.shl(builder.bitcast(rounded, _of(width, _INT)), _same(width, 23, _INT))
        return builder.bitcast(builder.add(builder.bitcast(power, whole.type), whole), x.type)

    return x(x), emit
