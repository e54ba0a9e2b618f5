"""Which series and labels a query uses, by its syntax tree. Labels are followed from the series to the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser as promql

Labels = frozenset[str]
_SCALAR = None
"""In place of the labels of what has none because it is a number."""


def parsed(query: str) -> Any:
    """The syntax tree; ValueError."""
    return promql.parse(query)


def selectors(node: Any) -> Iterator[tuple[str, Labels]]:
    """(name, labels that are matched) of each series that is named."""
    match node:
        case promql.VectorSelector():
            yield node.name, frozenset(each.name for each in node.matchers.matchers)
        case promql.MatrixSelector():
            yield from selectors(node.vector_selector)
        case _:
            for child in _children(node):
                yield from selectors(child)


def mistakes(query: str, series: dict[str, Labels]) -> list[str]:
    """What a query says of series and labels that no scrape has; one sentence each."""
    tree, wrong = parsed(query), []
    for name, labels in selectors(tree):
        if name not in series:
            wrong.append(f"there is no series {name}")
        else:
            wrong += [f"{name} has no label {label}" for label in sorted(labels - series[name])]
    if not wrong:
        _labels(tree, series, wrong)
    return wrong


def _labels(node: Any, series: dict[str, Labels], wrong: list[str]) -> Labels | None:  # noqa: PLR0911
    """Labels of a part's result; adds to `wrong` where one is used that is not there."""
    match node:
        case promql.VectorSelector():
            return series[node.name]
        case promql.MatrixSelector():
            return series[node.vector_selector.name]
        case promql.NumberLiteral() | promql.StringLiteral():
            return _SCALAR
        case promql.AggregateExpr():
            return _aggregated(node, _labels(node.expr, series, wrong) or frozenset(), wrong)
        case promql.BinaryExpr():
            return _joined(node, _labels(node.lhs, series, wrong), _labels(node.rhs, series, wrong), wrong)
        case promql.Call():
            return _called(node, [_labels(each, series, wrong) for each in node.args], wrong)
    return _labels(_children(node)[0], series, wrong)


def _called(node: Any, given: list[Labels | None], wrong: list[str]) -> Labels | None:
    vectors = [each for each in given if each is not _SCALAR]
    match node.func.name:
        case "absent":
            return frozenset()
        case "histogram_quantile" if "le" not in vectors[0]:
            wrong.append("histogram_quantile of what has no label le")
        case "histogram_quantile":
            return vectors[0] - {"le"}
        case "label_replace" | "label_join":
            wrong.append("labels that are made up cannot be checked")
    return vectors[0] if vectors else _SCALAR


def _aggregated(node: Any, inner: Labels, wrong: list[str]) -> Labels:
    if node.modifier is None:
        return frozenset()
    if node.modifier.type != promql.AggModifierType.By:
        wrong.append("`without` cannot be checked: name the labels that are kept")
    named = frozenset(node.modifier.labels)
    wrong += [f"nothing has the label {label} to group by" for label in sorted(named - inner)]
    return named


def _joined(node: Any, left: Labels | None, right: Labels | None, wrong: list[str]) -> Labels | None:
    """Both sides of an operator meet in the labels that are named, or else in all of them."""
    if left is _SCALAR or right is _SCALAR:
        return right if left is _SCALAR else left
    if str(node.op) == "or":
        return left | right
    matching = node.modifier.matching if node.modifier else None
    if matching is None:
        if left != right:
            wrong.append(f"the sides of {node.op} never meet: they differ in {sorted(left ^ right)}")
        return left
    if matching.type != promql.LabelModifierType.Include:
        wrong.append("`ignoring` cannot be checked: name the labels to meet on")
    wrong += [f"a side of {node.op} has no label {label}" for label in sorted(set(matching.labels) - (left & right))]
    return left | frozenset(node.modifier.group_labels or ())


def _children(node: Any) -> list[Any]:
    match node:
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return [node.expr]
        case promql.BinaryExpr():
            return [node.lhs, node.rhs]
        case promql.Call():
            return list(node.args)
    return []
