"""Arithmetic that a YAML file asks `eval` for, worked out as data.

Detectron2's RetinaNet configs write their anchor sizes as such a literal. Numbers, lists, list
comprehensions and the functions below are understood; everything else is refused.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

__all__ = ["arithmetic_allowed", "evaluate"]

TAGS = tuple(
    f"tag:yaml.org,2002:python/object/apply:{prefix}eval"
    for prefix in ("", "builtins.", "__builtin__.")
)
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "float": float,
    "int": int,
    "range": lambda *ends: list(_short(range(*ends))),
    "round": round,
}
FAULTS = (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError)
# What no config reaches, so that no literal takes long or much memory.
LARGEST, LARGEST_POWER, MOST_STEPS, MOST_CHARACTERS = 1e12, 64, 10_000, 1_000


@contextmanager
def arithmetic_allowed() -> Iterator[None]:
    """Inside the block, safe YAML loading reads `!!python/object/apply:eval` as arithmetic."""
    for tag in TAGS:
        yaml.SafeLoader.add_constructor(tag, _construct)
    try:
        yield
    finally:
        for tag in TAGS:
            del yaml.SafeLoader.yaml_constructors[tag]


def evaluate(text: str) -> Any:
    """Work out the arithmetic of one expression, without running it.

    Returns:
        A number or a list, of lists and numbers.

    Raises:
        ValueError: there is anything but arithmetic in it, or it is too long or too large.
    """
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError("it is too long")
        return _Evaluation().value(ast.parse(text.strip(), mode="eval").body, {})
    except FAULTS as error:
        raise ValueError(
            f"an eval of a config must be arithmetic; got {text[:80]!r}: {error}"
        ) from error


class _Evaluation:
    """The value of each part of an expression, by the values of its names."""

    def __init__(self) -> None:
        self.steps = 0

    def value(self, node: ast.AST, names: Mapping[str, Any]) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ValueError("it has too many steps")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _number(value)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self.value(part, names) for part in parts]
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](_number(self.value(operand, names)))
            case ast.BinOp(left=left, op=op, right=right):
                both = [_number(self.value(side, names)) for side in (left, right)]
                if isinstance(op, ast.Pow) and abs(both[1]) > LARGEST_POWER:
                    raise ValueError(f"a power must be at most {LARGEST_POWER}")
                return _number(OPERATORS[type(op)](*both)) if type(op) in OPERATORS else _no(op)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*(_number(self.value(arg, names)) for arg in args))
            case ast.ListComp(elt=element, generators=generators):
                return [self.value(element, inner) for inner in self.loop(generators, names)]
        return _no(node)

    def loop(
        self, generators: list[ast.comprehension], names: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """The names that each round of a comprehension has."""
        if not generators:
            yield names
            return
        first, *rest = generators
        values = self.value(first.iter, names)
        if first.ifs or not isinstance(first.target, ast.Name) or not isinstance(values, list):
            _no(first.target)
        for value in values:
            yield from self.loop(rest, {**names, first.target.id: value})  # type: ignore[attr-defined]


def _construct(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    args: Any = None
    if isinstance(node, yaml.SequenceNode):
        args = loader.construct_sequence(node)
    if not isinstance(args, list) or len(args) != 1 or not isinstance(args[0], str):
        raise ValueError(f"an eval of a config must have one text; got {args!r}")
    return evaluate(args[0])


def _number(value: Any) -> Any:
    if not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"{type(value).__name__} {str(value)[:20]} is not a number within bounds")
    return value


def _short(values: range) -> range:
    if len(values) > MOST_STEPS:
        raise ValueError("it has too many steps")
    return values


def _no(node: ast.AST) -> Any:
    raise ValueError(f"{type(node).__name__} is none of it")
