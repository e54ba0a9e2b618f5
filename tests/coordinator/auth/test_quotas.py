"""Quotas: what is let in, when the next one may come, and that counting is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_coordinator.auth.quotas import Quota, Quotas
from trireme_proto.errors import ConfigurationError, QuotaExceeded
from trireme_proto.limits import LIMITS


class Book:
    def __init__(self, quota: Quota, **options: int) -> None:
        self.quota, self.now = quota, 0.0
        self.quotas = Quotas(lambda _: self.quota, monotonic=lambda: self.now, **options)

    def enters(self, tenant: str = "a", *, stream: bool = False) -> float | None:
        """None where it is let in; else the seconds to wait."""
        try:
            self.quotas.enter(tenant, stream=stream)
        except QuotaExceeded as error:
            return error.retry_after
        return None


def test_requests_a_minute() -> None:
    book = Book(Quota(requests_per_minute=6))
    assert [book.enters() for _ in range(6)] == [None] * 6
    wait = book.enters()
    assert wait == pytest.approx(10)
    book.now += wait - 0.01
    assert book.enters() is not None
    book.now += 0.02
    assert book.enters() is None
    assert book.enters("b") is None, "another tenant has its own"


def test_tokens_overdraw_once_and_are_made_up_for() -> None:
    book = Book(Quota(tokens_per_minute=60))
    assert book.enters(stream=True) is None
    book.quotas.spent("a", 100)
    wait = book.enters(stream=True)
    assert wait == pytest.approx(41)
    assert book.enters() is None, "what generates nothing is not held up"
    book.now += wait
    assert book.enters(stream=True) is None


def test_streams_at_once() -> None:
    book = Book(Quota(streams=2))
    assert book.enters(stream=True) is book.enters(stream=True) is None
    assert book.enters(stream=True) == 1.0
    assert book.enters() is None
    book.quotas.left("a")
    assert book.enters(stream=True) is None


def test_a_quota_that_is_set_later_begins_without_debt() -> None:
    book = Book(Quota())
    for _ in range(1000):
        assert book.enters(stream=True) is None
        book.quotas.spent("a", 10)
        book.quotas.left("a")
    book.quota = Quota(60, 60, 1)
    book.now += 2
    assert book.enters(stream=True) is None


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200))
def test_never_more_than_the_balance_and_a_minutes_refill(steps: list[tuple[float, bool]]) -> None:
    book, let_in = Book(Quota(requests_per_minute=10)), 0
    for pause, _ in steps:
        book.now += pause
        let_in += book.enters() is None
    assert let_in <= 10 + book.now * 10 / 60 + 1e-6


def test_many_tenants_do_not_grow_it_and_those_with_streams_stay() -> None:
    book = Book(Quota(streams=1))
    assert book.enters("first", stream=True) is None
    for n in range(100_000):
        book.enters(f"t{n}")
    assert len(book.quotas) <= LIMITS.quota_tenants
    assert book.enters("first", stream=True) == 1.0


def test_the_hint_travels_as_retry_info() -> None:
    from trireme_proto.status import to_status

    book = Book(Quota(requests_per_minute=1))
    book.enters()
    with pytest.raises(QuotaExceeded) as caught:
        book.quotas.enter("a")
    assert [detail.type_url.rpartition(".")[2] for detail in to_status(caught.value).details] == [
        "ErrorInfo",
        "RetryInfo",
    ]


@pytest.mark.parametrize("value", [-1, 10**13, True, 1.5, "5"])
def test_what_is_no_quota(value: object) -> None:
    with pytest.raises(ConfigurationError):
        Quota(streams=value)  # type: ignore[arg-type]
