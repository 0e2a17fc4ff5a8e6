"""Eight doubles at once: an explicit vector type for compiled code.

numba has no vector type, and what LLVM vectorises by itself depends on the loop, the flags and the
CPU. Here the eight lanes are the code's: LLVM maps `<8 x double>` onto whatever registers there are
(one AVX-512, two AVX or four SSE2), every operation is IEEE 754 in a fixed order, and a fused
multiply-add is fused everywhere (by a library call where the CPU has none), so that results are the
same to the last bit on all of them.

Compiled functions use the operators + - * / < <= > >= == and & | ~ on vectors and masks, and the
functions of this module. Eight neighbours in memory are a row.
"""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic, overload

from pipeline.core.compilation import compiled

LANES = 8

_DOUBLE = ir.DoubleType()
_INTEGER = ir.IntType(64)
_DOUBLES = ir.VectorType(_DOUBLE, LANES)
_INTEGERS = ir.VectorType(_INTEGER, LANES)
_FLAGS = ir.VectorType(ir.IntType(1), LANES)


class Vector(types.Type):
    """The type of eight doubles."""

    def __init__(self) -> None:
        super().__init__("double8")


class Mask(types.Type):
    """The type of eight truth values."""

    def __init__(self) -> None:
        super().__init__("mask8")


class Rows(types.Type):
    """The type of the address of rows of eight doubles; ``[i]`` is a double, unchecked."""

    def __init__(self) -> None:
        super().__init__("rows8")


vector = Vector()
mask = Mask()
address = Rows()


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, type_: types.Type) -> None:
        super().__init__(manager, type_, _DOUBLES)


@register_default(Mask)
class _MaskModel(PrimitiveModel):
    def __init__(self, manager: Any, type_: types.Type) -> None:
        super().__init__(manager, type_, _FLAGS)


@register_default(Rows)
class _RowsModel(PrimitiveModel):
    def __init__(self, manager: Any, type_: types.Type) -> None:
        super().__init__(manager, type_, _DOUBLE.as_pointer())


def operation(function: Callable[..., Any]) -> Any:
    """Make an operation of compiled code; as it is one only there, no types are claimed for it."""
    return intrinsic(function)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [ir.Constant(_INTEGER, value)] * LANES)


def _unary(result: types.Type, argument: types.Type, emit: Callable[..., Any]) -> Any:
    @operation
    def apply(context, a):
        return result(argument), lambda context, builder, signature, values: emit(builder, *values)

    return apply


def _binary(result: types.Type, argument: types.Type, emit: Callable[..., Any]) -> Any:
    @operation
    def apply(context, a, b):
        def codegen(context, builder, signature, values):
            return emit(builder, *values)

        return result(argument, argument), codegen

    return apply


def _library(builder: Any, name: str, *values: Any) -> Any:
    """Call the LLVM intrinsic of this name on vectors of doubles."""
    signature = ir.FunctionType(_DOUBLES, [_DOUBLES] * len(values))
    name = f"{name}.v{LANES}f64"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, values)


def _operator(symbol: Any, operation: Any, *arguments: types.Type) -> None:
    """Let compiled code write an operation on vectors or masks with Python's operator."""
    if len(arguments) == 1:

        @overload(symbol)
        def one(a):
            if a == arguments[0]:
                return lambda a: operation(a)
            return None

    else:

        @overload(symbol)
        def two(a, b):
            if (a, b) == arguments:
                return lambda a, b: operation(a, b)
            return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _emit = lambda builder, a, b, instruction=_instruction: getattr(builder, instruction)(a, b)  # noqa: E731
    _operator(_symbol, _binary(vector, vector, _emit), vector, vector)
for _symbol, _predicate in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
):
    _emit = lambda builder, a, b, predicate=_predicate: builder.fcmp_ordered(predicate, a, b)  # noqa: E731
    _operator(_symbol, _binary(mask, vector, _emit), vector, vector)
for _symbol, _instruction in ((operator.and_, "and_"), (operator.or_, "or_")):
    _emit = lambda builder, a, b, instruction=_instruction: getattr(builder, instruction)(a, b)  # noqa: E731
    _operator(_symbol, _binary(mask, mask, _emit), mask, mask)
_operator(operator.neg, _unary(vector, vector, lambda builder, a: builder.fneg(a)), vector)
_operator(operator.invert, _unary(mask, mask, lambda builder, a: builder.not_(a)), mask)

absolute = _unary(vector, vector, lambda builder, a: _library(builder, "llvm.fabs", a))
root = _unary(vector, vector, lambda builder, a: _library(builder, "llvm.sqrt", a))
rounded_down = _unary(vector, vector, lambda builder, a: _library(builder, "llvm.floor", a))
# Bit i of the integer is lane i of the mask.
bits = _unary(
    types.int64,
    mask,
    lambda builder, a: builder.zext(builder.bitcast(a, ir.IntType(LANES)), _INTEGER),
)
# The inverse of ``bits``.
mask_of = _unary(
    mask,
    types.int64,
    lambda builder, a: builder.bitcast(builder.trunc(a, ir.IntType(LANES)), _FLAGS),
)


def _emit_maximum(builder, a, b):
    # Not-a-number in either argument gives b, as the comparison is false.
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


maximum = _binary(vector, vector, _emit_maximum)


def _emit_minimum(builder, a, b):
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


minimum = _binary(vector, vector, _emit_minimum)


def _emit_lane_sum(builder, a):
    index = ir.IntType(32)
    for distance in (1, 2, 4):
        partners = [ir.Constant(index, lane ^ distance) for lane in range(LANES)]
        order = ir.Constant(ir.VectorType(index, LANES), partners)
        a = builder.fadd(a, builder.shuffle_vector(a, a, order))
    return a


# The sum of all lanes, in every lane: neighbours first, so that all add up the same numbers.
lane_sum = _unary(vector, vector, _emit_lane_sum)


def _emit_first(builder, a):
    return builder.extract_element(a, ir.Constant(ir.IntType(32), 0))


first_lane = _unary(types.float64, vector, _emit_first)


@operation
def fma(context, a, b, c):
    """Return a b + c, rounded once."""

    def codegen(context, builder, signature, values):
        return _library(builder, "llvm.fma", *values)

    return vector(vector, vector, vector), codegen


@operation
def select(context, flags, a, b):
    """Return the lanes of `a` where the mask is true, those of `b` elsewhere."""

    def codegen(context, builder, signature, values):
        return builder.select(*values)

    return vector(mask, vector, vector), codegen


@operation
def splat(context, value):
    """Return a float in every lane."""

    def codegen(context, builder, signature, values):
        undefined = ir.Constant(_DOUBLES, ir.Undefined)
        first = builder.insert_element(undefined, values[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, zeros)

    return vector(types.float64), codegen


@operation
def rows(context, array, index):
    """Return the address of a flat, contiguous float64 array's element, which is to be held.

    Rounded up to whole rows, as a row in two cache lines takes twice the time: the array needs a
    row to spare. numba counts the references to an array that a call takes, mostly by two atomic
    operations: those of one iteration cost as much as its arithmetic on a small sample.
    """

    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        size = 8 * LANES
        whole = builder.add(builder.ptrtoint(data, _INTEGER), ir.Constant(_INTEGER, size - 1))
        whole = builder.and_(whole, ir.Constant(_INTEGER, -size))
        return builder.gep(builder.inttoptr(whole, data.type), [values[1]])

    return address(array, types.intp), codegen


@operation
def rows_from(context, place, index):
    """Return the rows that begin at an element of rows."""

    def codegen(context, builder, signature, values):
        return builder.gep(values[0], [values[1]])

    return address(place, types.intp), codegen


@operation
def hold(context, array):
    """Keep an array until here: numba frees it after the last line that names it."""

    def codegen(context, builder, signature, values):
        return context.get_dummy_value()

    return types.void(array), codegen


@operation
def _get(context, place, index):
    def codegen(context, builder, signature, values):
        return builder.load(builder.gep(values[0], [values[1]]))

    return types.float64(place, types.intp), codegen


@operation
def _set(context, place, index, value):
    def codegen(context, builder, signature, values):
        builder.store(values[2], builder.gep(values[0], [values[1]]))
        return context.get_dummy_value()

    return types.void(place, types.intp, types.float64), codegen


@overload(operator.getitem)
def _get_item(place, index):
    if place == address:
        return lambda place, index: _get(place, index)
    return None


@overload(operator.setitem)
def _set_item(place, index, value):
    if place == address:
        return lambda place, index, value: _set(place, index, value)
    return None


def _address(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    place = values[0]
    if isinstance(signature.args[0], types.Array):
        place = context.make_array(signature.args[0])(context, builder, place).data
    return builder.bitcast(builder.gep(place, [values[1]]), _DOUBLES.as_pointer())


@operation
def load(context, place, index):
    """Return eight neighbours of rows or of a flat, contiguous float64 array; unchecked."""

    def codegen(context, builder, signature, values):
        return builder.load(_address(context, builder, signature, values), align=8)

    return vector(place, types.intp), codegen


@operation
def store(context, place, index, value):
    """Write eight neighbours of rows or of a flat, contiguous float64 array; unchecked."""

    def codegen(context, builder, signature, values):
        builder.store(values[2], _address(context, builder, signature, values), align=8)
        return context.get_dummy_value()

    return types.void(place, types.intp, vector), codegen


def _emit_upper_bits(builder, a):
    fraction = builder.lshr(builder.bitcast(a, _INTEGERS), _integers(12))
    return builder.bitcast(builder.or_(fraction, _integers(0x3FF << 52)), _DOUBLES)


# 1 + j / 2^52, with j the upper 52 bits of each lane, whatever number they stand for.
upper_bits = _unary(vector, vector, _emit_upper_bits)


def polynomial(*coefficients: float) -> Any:
    """Make the operation that evaluates a polynomial by Horner's rule, highest power first.

    An operation, as LLVM would leave a loop over a long tuple a loop.
    """

    def emit(builder, x):
        first, *others = (ir.Constant(_DOUBLES, [c] * LANES) for c in coefficients)
        return reduce(lambda value, c: _library(builder, "llvm.fma", value, x, c), others, first)

    return _unary(vector, vector, emit)


# Adding and subtracting it rounds a double below 2^51 to an integer, which stands in its low bits.
_ROUNDER = 1.5 * 2.0**52


def _emit_scale(builder, a, rounded):
    shift = builder.shl(builder.bitcast(rounded, _INTEGERS), _integers(52))
    return builder.bitcast(builder.add(builder.bitcast(a, _INTEGERS), shift), _DOUBLES)


# a 2^n, with n as the low bits of n + _ROUNDER; the result must be a normal number.
_scaled_by_power = _binary(vector, vector, _emit_scale)

# The bits of sqrt(1/2), cut to 32: the mantissa taken out is in [sqrt(1/2), sqrt(2)).
_HALF_ROOT = 0x3FE6A09E00000000


def _emit_exponent(builder, a):
    offset = builder.sub(builder.bitcast(a, _INTEGERS), _integers(_HALF_ROOT))
    return builder.sitofp(builder.ashr(offset, _integers(52)), _DOUBLES)


def _emit_mantissa(builder, a):
    whole = builder.bitcast(a, _INTEGERS)
    offset = builder.sub(whole, _integers(_HALF_ROOT))
    exponent = builder.shl(builder.ashr(offset, _integers(52)), _integers(52))
    return builder.bitcast(builder.sub(whole, exponent), _DOUBLES)


_exponent = _unary(vector, vector, _emit_exponent)
_mantissa = _unary(vector, vector, _emit_mantissa)

# 2^f = 1 + f q(f) on [-1/2, 1/2]: q of degree 10 through its Chebyshev nodes, relative error 2e-17,
# highest power first.
_EXP2 = (
    4.4549605981865186e-10,
    7.072585949269223e-09,
    1.0178062445845774e-07,
    1.321544258792169e-06,
    1.525273382983612e-05,
    0.0001540353044173605,
    0.0013333558146416936,
    0.009618129107606888,
    0.0555041086648216,
    0.24022650695910097,
    0.6931471805599453,
)
# log2(m) = s g(s^2) with s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)): g of degree 7, likewise.
_log2_ratio = polynomial(
    0.2136589569431927,
    0.2209130842311768,
    0.262334352504183,
    0.32059853491395984,
    0.4121985858409005,
    0.5770780163455203,
    0.9617966939259898,
    2.8853900817779268,
)
# Even and odd powers apart: two chains of half the length.
_exp2_even, _exp2_odd = polynomial(*_EXP2[::2]), polynomial(*_EXP2[1::2])
_LEAST_EXPONENT = -1021.0


@compiled
def exp2(t):
    """Return 2^t for t <= 1, within 1 ulp; 0 below 2^-1021 (no subnormal numbers)."""
    rounded = t + splat(_ROUNDER)
    f = t - (rounded - splat(_ROUNDER))
    u = f * f
    q = fma(_exp2_odd(u), f, _exp2_even(u))
    power = _scaled_by_power(fma(q, f, splat(1.0)), rounded)
    return select(t < splat(_LEAST_EXPONENT), splat(0.0), power)


@compiled
def log2(x):
    """Return log2(x) for positive normal x, within 3 ulp; x itself where it is not finite."""
    m = _mantissa(x)
    s = (m - splat(1.0)) / (m + splat(1.0))
    return select(x < splat(math.inf), fma(s, _log2_ratio(s * s), _exponent(x)), x)
