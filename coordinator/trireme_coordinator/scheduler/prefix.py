"""Which slots begin with which tokens: a tree of full pages for each tenant.

A node stands for a page of tokens after all the pages above it, and knows the slots that hold these keys and values.
Pages are compared token by token, so that no two texts are ever taken for the same; tenants have separate trees.

    root -- [0 .. 15] slots 3, 5 --+-- [16 .. 31] slot 3
                                   +-- [16 .. 31] slot 5      (other tokens)
"""

from __future__ import annotations

from collections.abc import Sequence

PAGE_TOKENS = 16


class _Node:
    __slots__ = ("above", "below", "page", "slots")

    def __init__(self, above: _Node | None, page: tuple[int, ...]) -> None:
        self.above, self.page = above, page
        self.below: dict[tuple[int, ...], _Node] = {}
        self.slots: dict[int, None] = {}


class PrefixTree:
    """What slots hold in full pages, by tenant."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._paths: dict[int, list[_Node]] = {}  # slot -> its pages' nodes
        self._tenants: dict[int, str] = {}

    def pages(self, slot: int) -> int:
        """Full pages that a slot is known to hold."""
        return len(self._paths.get(slot, ()))

    def add(self, slot: int, tenant: str, tokens: Sequence[int], pages: int) -> None:
        """The slot holds the first `pages` pages of `tokens`, which begin with what it is known to hold."""
        path = self._paths.get(slot)
        if path is None:
            path = self._paths[slot] = []
            self._tenants[slot] = tenant
        for n in range(len(path), pages):
            above = path[-1] if path else self._root(tenant)
            page = _page(tokens, n)
            node = above.below.get(page)
            if node is None:
                node = above.below[page] = _Node(above, page)
            node.slots[slot] = None
            path.append(node)

    def longest(self, slot: int | None, tenant: str, tokens: Sequence[int], pages: int) -> tuple[int, int] | None:
        """(another slot, pages) that hold the most of the first `pages` pages of `tokens`, and more than `slot` does;
        None where no other does.
        """
        path = self._paths.get(slot, []) if slot is not None else []
        node: _Node | None = path[-1] if path else self._roots.get(tenant)
        depth, found = len(path), None
        while node is not None and depth < pages:
            node = node.below.get(_page(tokens, depth))
            depth += 1
            if node is not None:
                found = next(iter(node.slots)), depth
        return found

    def remove(self, slot: int) -> None:
        """The slot holds nothing any more."""
        for node in reversed(self._paths.pop(slot, [])):
            del node.slots[slot]
            if not node.slots and node.above is not None:  # then nobody is below it either
                del node.above.below[node.page]
        tenant = self._tenants.pop(slot, None)
        if tenant is not None and not self._root(tenant).below:
            del self._roots[tenant]

    def _root(self, tenant: str) -> _Node:
        if tenant not in self._roots:
            self._roots[tenant] = _Node(None, ())
        return self._roots[tenant]


def _page(tokens: Sequence[int], n: int) -> tuple[int, ...]:
    return tuple(tokens[PAGE_TOKENS * n : PAGE_TOKENS * (n + 1)])
