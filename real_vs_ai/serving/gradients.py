"""Differentiate an OpenVINO graph: one small rule for each kind of operator.

OpenVINO runs networks forward only. The gradient is built from the same operators as a graph of
its own: it goes back from the result to the tensor asked for, by the chain rule, and needs only the
operators that lie between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from real_vs_ai.serving.keras_graph import UnsupportedGraphError

# Takes an operator, the gradient of the result by its output, and the position of the input asked
# for; gives the gradient by that input.
Rule = Callable[[ov.Node, Any, int], Any]
RULES: dict[str, Rule] = {}


def gradient(result: ov.Output, seed: Any, *, by: ov.Output, parameter: ov.Node) -> ov.Output:
    """The gradient of a weighted sum of a tensor's values.

    Args:
        result: The tensor; every shape in its graph is known.
        seed: The weights, of the tensor's shape.

    Raises:
        UnsupportedGraphError: An operator between the two has no rule, or nothing connects them.
    """
    between = _nodes_between(by, result, parameter)
    found: dict[str, Any] = {result.get_node().get_name(): seed}
    start = by.get_node().get_name()
    for node in reversed(between):
        slope = found.pop(node.get_name(), None)
        if slope is None:
            continue
        rule = RULES.get(node.get_type_name())
        if rule is None:
            kind, name = node.get_type_name(), node.get_friendly_name()
            raise UnsupportedGraphError(f"its layer {name} has no gradient here ({kind})")
        names = {other.get_name() for other in between} | {start}
        for position, source in enumerate(node.input_values()):
            name = source.get_node().get_name()
            if name in names:
                part = rule(node, slope, position)
                found[name] = ops.add(found[name], part) if name in found else part
    if start not in found:
        raise UnsupportedGraphError("its output does not depend on its feature maps")
    return found[start].output(0)


def _nodes_between(first: ov.Output, last: ov.Output, parameter: ov.Node) -> list[ov.Node]:
    """Operators that depend on `first`, without its own, in the order of computation."""
    names = {first.get_node().get_name()}
    between = []
    for node in ov.Model([last], [parameter], "way").get_ordered_ops():
        sources = {value.get_node().get_name() for value in node.input_values()}
        if sources & names and node.get_type_name() != "Result":
            names.add(node.get_name())
            between.append(node)
    return between


def _rule(*kinds: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def _transposed(node: ov.Node, slope: Any, kernel: Any, **sizes: Any) -> Any:
    """The convolution back from outputs to inputs, of as many groups as the operator has."""
    plain = node.get_type_name() == "Convolution"
    operator = ops.convolution_backprop_data if plain else ops.group_convolution_backprop_data
    return operator(slope, kernel, node.get_attributes()["strides"], auto_pad="explicit", **sizes)


@_rule("Convolution", "GroupConvolution")
def _convolution(node: ov.Node, slope: Any, _: int) -> Any:
    options = node.get_attributes()
    # A constant of its own: OpenVINO 2026.4 mixes up the layouts of a kernel that a convolution and
    # its transpose share.
    kernel = ops.constant(node.input_value(1).get_node().get_data().copy()).output(0)
    sizes = zip(
        _shape(node.input_value(0))[2:],
        _shape(node.output(0))[2:],
        _shape(kernel)[-2:],
        options["strides"],
        options["dilations"],
        strict=True,
    )
    begins, ends, lasts = [], [], []
    for size, cells, reach, stride, dilation in sizes:
        covered = stride * (cells - 1) + dilation * (reach - 1) + 1
        padding = max(covered - size, 0) if options["auto_pad"] == "same_upper" else 0
        begins.append(padding // 2)
        ends.append(padding - padding // 2)
        # Rows at the end that no window reached.
        lasts.append(size + padding - covered)
    sizes = {"pads_begin": begins, "pads_end": ends, "output_padding": lasts}
    return _transposed(node, slope, kernel, dilations=options["dilations"], **sizes)


@_rule("Add", "Subtract")
def _add(node: ov.Node, slope: Any, position: int) -> Any:
    negative = position and node.get_type_name() == "Subtract"
    return _reduced_to(ops.negative(slope) if negative else slope, node.input_value(position))


@_rule("Multiply")
def _multiply(node: ov.Node, slope: Any, position: int) -> Any:
    other = node.input_value(1 - position)
    return _reduced_to(ops.multiply(slope, other), node.input_value(position))


@_rule("Divide")
def _divide(node: ov.Node, slope: Any, position: int) -> Any:
    share = ops.divide(slope, node.input_value(1))
    part = ops.negative(ops.multiply(share, node.output(0))) if position else share
    return _reduced_to(part, node.input_value(position))


@_rule("Maximum")
def _maximum(node: ov.Node, slope: Any, position: int) -> Any:
    x, other = node.input_value(position), node.input_value(1 - position)
    return _reduced_to(_where(ops.greater(x, other), slope), x)


@_rule("Relu")
def _relu(node: ov.Node, slope: Any, _: int) -> Any:
    return _where(ops.greater(node.input_value(0), _number(0)), slope)


@_rule("Clamp")
def _clamp(node: ov.Node, slope: Any, _: int) -> Any:
    x, limits = node.input_value(0), node.get_attributes()
    above = ops.greater(x, _number(limits["min"]))
    return _where(ops.logical_and(above, ops.less(x, _number(limits["max"]))), slope)


@_rule("Sqrt")
def _sqrt(node: ov.Node, slope: Any, _: int) -> Any:
    return ops.divide(slope, ops.multiply(_number(2), node.output(0)))


@_rule("ReduceMean", "ReduceSum")
def _reduce(node: ov.Node, slope: Any, _: int) -> Any:
    source = _shape(node.input_value(0))
    axes = [int(axis) for axis in node.input_value(1).get_node().get_data().reshape(-1)]
    kept = [1 if axis in axes else size for axis, size in enumerate(source)]
    share = _reshaped(slope, kept)
    if node.get_type_name() == "ReduceMean":
        share = ops.divide(share, _number(np.prod([source[axis] for axis in axes])))
    return ops.broadcast(share, np.array(source))


@_rule("MatMul")
def _matmul(node: ov.Node, slope: Any, position: int) -> Any:
    options = node.get_attributes()
    if position or options["transpose_a"]:
        raise UnsupportedGraphError("it multiplies two of its tensors")
    return ops.matmul(slope, node.input_value(1), False, not options["transpose_b"])


@_rule("Reshape", "Squeeze", "Unsqueeze")
def _reshape(node: ov.Node, slope: Any, _: int) -> Any:
    return _reshaped(slope, _shape(node.input_value(0)))


@_rule("Transpose")
def _transpose(node: ov.Node, slope: Any, _: int) -> Any:
    order = node.input_value(1).get_node().get_data()
    return ops.transpose(slope, np.argsort(order))


@_rule("Concat")
def _concat(node: ov.Node, slope: Any, position: int) -> Any:
    axis = node.get_attributes()["axis"]
    lengths = [_shape(value)[axis] for value in node.input_values()]
    start = sum(lengths[:position])
    bounds = ([start], [start + lengths[position]], [1], [axis])
    return ops.slice(slope, *(np.array(bound) for bound in bounds))


@_rule("Pad")
def _pad(node: ov.Node, slope: Any, _: int) -> Any:
    starts = node.input_value(1).get_node().get_data()
    stops = starts + np.array(_shape(node.input_value(0)))
    return ops.slice(slope, starts, stops, np.ones_like(starts), np.arange(len(starts)))


@_rule("AvgPool")
def _avg_pool(node: ov.Node, slope: Any, _: int) -> Any:
    options = node.get_attributes()
    size, cells = _shape(node.input_value(0)), _shape(node.output(0))
    kernel, strides = list(options["kernel"]), list(options["strides"])
    covered = [s * (c - 1) + k for s, c, k in zip(strides, cells[2:], kernel, strict=True)]
    lasts = [total - reach for total, reach in zip(size[2:], covered, strict=True)]
    if min(lasts) < 0:
        raise UnsupportedGraphError("it averages over padding")
    weights = np.full((size[1], 1, 1, *kernel), 1 / np.prod(kernel), np.float32)
    sizes = {"pads_begin": [0, 0], "pads_end": [0, 0], "output_padding": lasts}
    return _transposed(node, slope, ops.constant(weights), dilations=[1, 1], **sizes)


def _shape(output: ov.Output) -> list[int]:
    return list(output.get_shape())


def _number(value: float) -> Any:
    return ops.constant(np.float32(value))


def _where(condition: Any, slope: Any) -> Any:
    return ops.select(condition, slope, _number(0))


def _reshaped(slope: Any, shape: list[int]) -> Any:
    return ops.reshape(slope, np.array(shape), False)


def _reduced_to(slope: Any, source: ov.Output) -> Any:
    """The sum over the axes along which an operand was repeated."""
    wide, narrow = _shape(slope.output(0)), _shape(source)
    narrow = [1] * (len(wide) - len(narrow)) + narrow
    repeated = [axis for axis, size in enumerate(narrow) if size != wide[axis]]
    summed = ops.reduce_sum(slope, np.array(repeated), True) if repeated else slope
    return _reshaped(summed, _shape(source)) if len(wide) != len(_shape(source)) else summed
