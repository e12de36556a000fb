"""Conditions on the rows of a table: ``decision == 'selected' and patient != 'TCGA-A1-A0SB'``.

A small part of Python's expressions: column names, texts, numbers and None, compared with ``== != < <= > >= in``,
``not in`` and ``is``, joined by ``and``, ``or``, ``not`` and parentheses. Nothing in them is executed: they are parsed
and computed column by column.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

Mask = NDArray[np.bool_]

_ORDERED: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_MIRRORED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_EQUAL = (ast.Eq, ast.Is)
_UNEQUAL = (ast.NotEq, ast.IsNot)


#: Most levels of a condition.
_DEEPEST = 100


class Where:
    """A condition, parsed once and computed on any number of tables.

    A row without a value (null) equals None and nothing else, is in no list, and is neither less nor greater than
    anything.

    Attributes:
        text: as it was given.
        columns: names of the columns that it looks at, sorted.

    Raises:
        ConfigError: if the text is not such a condition; the message quotes the part that is not.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refuse(text, getattr(error, "msg", None) or str(error)) from None
        self._check_depth()
        self._check(self._tree)
        self.columns = tuple(sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}))

    def __call__(self, table: pa.Table) -> Mask:
        """Which rows of a table fulfil it: bool, (n,).

        Raises:
            ConfigError: if a column is not there, or its values cannot be compared so.
        """
        for name in self.columns:
            if name not in table.column_names:
                raise self._refuse(name, f"there is no such column; there are {', '.join(table.column_names)}")
        return self._mask(self._tree, table)

    def _mask(self, node: ast.expr, table: pa.Table) -> Mask:
        if isinstance(node, ast.BoolOp):
            join: Callable[..., Mask] = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return _fold(join, [self._mask(value, table) for value in node.values])
        if isinstance(node, ast.UnaryOp):
            return ~self._mask(node.operand, table)
        if isinstance(node, ast.Name):
            return self._compare(node.id, ast.Eq(), True, table)
        assert isinstance(node, ast.Compare)
        sides = [node.left, *node.comparators]
        return _fold(
            np.logical_and,
            [
                self._pair(left, operator, right, table)
                for left, operator, right in zip(sides, node.ops, sides[1:], strict=False)
            ],
        )

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr, table: pa.Table) -> Mask:
        if isinstance(left, ast.Name):
            return self._compare(left.id, operator, ast.literal_eval(right), table)
        assert isinstance(right, ast.Name)
        return self._compare(right.id, _MIRRORED.get(type(operator), type(operator))(), ast.literal_eval(left), table)

    def _compare(self, name: str, operator: ast.cmpop, value: Any, table: pa.Table) -> Mask:
        import pyarrow as pa

        parts = table[name].chunks
        try:
            found = [_of_dictionary(part, operator, value) for part in parts]
        except (pa.ArrowException, TypeError) as error:
            kind = table.schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            raise self._refuse(
                f"{name} and {value!r}", f"the column holds {kind}, which cannot be compared so"
            ) from error
        return np.concatenate([np.empty(0, bool), *found])

    def _check_depth(self) -> None:
        """Refuse what is nested so deeply that looking at it would exhaust the stack."""
        level: list[ast.AST] = [self._tree]
        for _ in range(_DEEPEST):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if level:
            raise self._refuse(f"{self.text[:40]}...", "it is nested too deeply")

    def _check(self, node: ast.expr) -> None:
        """Refuse what is not part of the language."""
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self._check(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                self._check_pair(node, left, operator, right)
        elif not isinstance(node, ast.Name):
            raise self._refuse(ast.unparse(node), "it is neither a comparison nor a column of true and false")

    def _check_pair(self, node: ast.expr, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> None:
        if isinstance(left, ast.Name) == isinstance(right, ast.Name):
            raise self._refuse(ast.unparse(node), "a column is compared with a value")
        value = right if isinstance(left, ast.Name) else left
        try:
            constant = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError):
            raise self._refuse(ast.unparse(value), "write texts in quotes, and values as they are") from None
        if isinstance(operator, ast.In | ast.NotIn):
            good = value is right and isinstance(constant, list | tuple | set)
            items = list(constant) if good else []
        else:
            good, items = True, [constant]
        plain = all(item is None or isinstance(item, str | int | float) for item in items)
        if not good or not plain or (type(operator) in _ORDERED and constant is None):
            raise self._refuse(ast.unparse(node), "compare a column with a text, a number, None or, after in, a list")

    def _refuse(self, part: str, why: str) -> ConfigError:
        example = "decision == 'selected' and patient != 'TCGA-A1-A0SB'"
        return ConfigError(f"the condition {self.text!r} cannot be used: {part}: {why}. Write, for example, {example}")


def _fold(join: Callable[..., Mask], masks: list[Mask]) -> Mask:
    found = masks[0]
    for mask in masks[1:]:
        found = join(found, mask)
    return found


def _of_dictionary(values: pa.Array, operator: ast.cmpop, value: Any) -> Mask:
    """A comparison of a column, computed once for each entry of its dictionary where it has one."""
    import pyarrow as pa

    if not pa.types.is_dictionary(values.type):
        return _of_values(values, operator, value)
    entries = _of_values(values.dictionary, operator, value)
    absent = bool(_of_values(pa.nulls(1, values.dictionary.type), operator, value)[0])
    codes = values.indices.fill_null(len(entries)).to_numpy(zero_copy_only=False)
    found: Mask = np.append(entries, absent)[codes]
    return found


def _of_values(values: pa.Array, operator: ast.cmpop, value: Any) -> Mask:
    import pyarrow as pa
    import pyarrow.compute as pc

    found: Mask
    if isinstance(operator, ast.In | ast.NotIn):
        items = [item for item in value if item is not None]
        found = _plain(pc.is_in(values, value_set=pa.array(items, None if items else values.type).cast(values.type)))
        if None in value:
            found |= _plain(pc.is_null(values))
        return ~found if isinstance(operator, ast.NotIn) else found
    if value is None:
        found = _plain(pc.is_null(values))
    elif isinstance(operator, (*_EQUAL, *_UNEQUAL)):
        found = _plain(pc.equal(values, value))
    else:
        found = _plain(getattr(pc, _ORDERED[type(operator)])(values, value))
    return ~found if isinstance(operator, _UNEQUAL) else found


def _plain(found: Any) -> Mask:
    """Arrow's true, false and null as true and false."""
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)
