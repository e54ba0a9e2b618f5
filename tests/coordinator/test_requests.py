"""CVE-2026-21869, CVE-2026-34756, CVE-2025-48956: every field of a request at its bounds, and one step beyond them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from trireme_coordinator.scheduler import SamplingParams
from trireme_coordinator.service import requests
from trireme_coordinator.service.requests import Bounds
from trireme_proto.errors import InvalidRequest, PromptTooLong, TriremeError
from trireme_proto.limits import LIMITS
from trireme_proto.v1 import inference_pb2 as pb

BOUNDS = Bounds(vocabulary=4096, context=256, temperature=0.7, top_k=40, top_p=0.9)
SEED = 77


def check(request: pb.GenerateRequest, prompt_tokens: int = 3) -> None:
    """All checks, as the service makes them."""
    requests.check_prompt(request, BOUNDS)
    requests.check_max_tokens(request, BOUNDS)
    requests.stops(request)
    requests.priority(request)
    requests.sampling(request, BOUNDS, SEED)
    requests.max_tokens(request, BOUNDS, prompt_tokens)


def with_text(text: str) -> pb.GenerateRequest:
    return pb.GenerateRequest(text=text)


def with_ids(*ids: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids))


def with_sampling(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(text="a", sampling=pb.Sampling(**fields))


def with_max(value: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(text="a", max_tokens=value)


def with_stops(*stops: str) -> pb.GenerateRequest:
    return pb.GenerateRequest(text="a", stop=stops)


UINT32 = 2**32 - 1
TOO_MANY_STOPS = ["x"] * (LIMITS.stop_texts + 1)

TAKEN: list[pb.GenerateRequest] = [
    with_text(""),
    with_text("x" * LIMITS.prompt_bytes),
    with_ids(),
    with_ids(0, 4095),
    with_ids(*[1] * LIMITS.request_tokens),
    *(pb.GenerateRequest(text="a", priority=v) for v in (0, LIMITS.priority)),
    *(with_sampling(temperature=v) for v in (0, -0.0, 1e-45, LIMITS.temperature)),
    *(with_sampling(top_k=v) for v in (0, 1, 4096)),
    *(with_sampling(top_p=v) for v in (1e-45, 0.5, 1)),
    *(with_sampling(seed=v) for v in (0, 2**64 - 1)),
    *(with_max(v) for v in (1, 256)),
    with_stops(),
    with_stops("x", "é" * (LIMITS.stop_bytes // 2)),
    with_stops(*["x" * LIMITS.stop_bytes] * LIMITS.stop_texts),
]

REFUSED: list[tuple[pb.GenerateRequest, type[TriremeError], str]] = [
    (pb.GenerateRequest(), InvalidRequest, "^prompt is missing: give text or token_ids.$"),
    (
        with_text("x" * (LIMITS.prompt_bytes + 1)),
        PromptTooLong,
        "^text has 4194305 bytes; at most 4194304 are",
    ),
    (with_text("é" * (LIMITS.prompt_bytes // 2 + 1)), PromptTooLong, "^text has 4194306 bytes"),
    (with_ids(0, 4096), InvalidRequest, "^token id 4096 is not in the vocabulary of 4096 tokens.$"),
    (with_ids(UINT32, 0), InvalidRequest, "^token id 4294967295 is not in the vocabulary"),
    (with_ids(*[1] * (LIMITS.request_tokens + 1)), PromptTooLong, "^1048577 token ids were given; at most 1048576"),
    (pb.GenerateRequest(text="a", priority=10), InvalidRequest, "^priority is 10; it must be 0 to 9.$"),
    (with_sampling(temperature=-0.5), InvalidRequest, "^temperature is -0.5; it must be 0 to 100.$"),
    (with_sampling(temperature=-1e-45), InvalidRequest, "^temperature is -1.4"),
    (with_sampling(temperature=100.00001), InvalidRequest, "^temperature is 100.000008; it must be 0 to 100.$"),
    (with_sampling(temperature=math.nan), InvalidRequest, "^temperature is nan; it must be 0 to 100.$"),
    (with_sampling(temperature=math.inf), InvalidRequest, "^temperature is inf"),
    (with_sampling(temperature=-math.inf), InvalidRequest, "^temperature is -inf"),
    (with_sampling(top_k=4097), InvalidRequest, "^top_k is 4097; it must be 0 to 4096.$"),
    (with_sampling(top_k=UINT32), InvalidRequest, "^top_k is 4294967295; it must be 0 to 4096.$"),
    (with_sampling(top_p=0), InvalidRequest, "^top_p is 0; it must be above 0 and at most 1.$"),
    (with_sampling(top_p=-0.25), InvalidRequest, "^top_p is -0.25"),
    (with_sampling(top_p=1.0000001), InvalidRequest, "^top_p is 1.00000012"),
    (with_sampling(top_p=math.nan), InvalidRequest, "^top_p is nan"),
    (with_sampling(top_p=math.inf), InvalidRequest, "^top_p is inf"),
    (with_max(0), InvalidRequest, "^max_tokens is 0; it must be 1 to 256.$"),
    (with_max(257), InvalidRequest, "^max_tokens is 257"),
    (with_max(UINT32), InvalidRequest, "^max_tokens is 4294967295; it must be 1 to 256.$"),
    (with_stops(""), InvalidRequest, "^a stop text has 0 bytes; it must have 1 to 256.$"),
    (with_stops("ok", "x" * (LIMITS.stop_bytes + 1)), InvalidRequest, "^a stop text has 257 bytes"),
    (with_stops("é" * (LIMITS.stop_bytes // 2 + 1)), InvalidRequest, "^a stop text has 258 bytes"),
    (with_stops(*TOO_MANY_STOPS), InvalidRequest, "^9 stop texts were given; at most 8 are allowed.$"),
]


@pytest.mark.parametrize("request_", TAKEN, ids=range(len(TAKEN)))
def test_within_the_bounds(request_: pb.GenerateRequest) -> None:
    check(request_)


@pytest.mark.parametrize(("request_", "error", "why"), REFUSED, ids=[why[1:30] for _, _, why in REFUSED])
def test_beyond_the_bounds(request_: pb.GenerateRequest, error: type[TriremeError], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as raised:
        check(request_)
    assert type(raised.value) is error


def test_each_field_of_a_request_is_looked_at_here() -> None:
    """A new field must get its bounds, and its rows above."""
    assert {f.name for f in pb.GenerateRequest.DESCRIPTOR.fields} == {
        *("text", "token_ids", "max_tokens", "sampling", "stop", "priority"),  # above
        *("session_id", "request_id"),  # test_ids
        *("ignore_eos", "trace_steps"),  # have no bounds
        "session_tokens",  # has none: more than there are is refused, tests/security/test_unbounded_fields.py
        "resume_index",  # has those of the answer: test_resuming.py
    }
    assert {f.name for f in pb.Sampling.DESCRIPTOR.fields} == {"temperature", "top_k", "top_p", "seed"}


def test_defaults_are_the_models() -> None:
    assert requests.sampling(with_text("a"), BOUNDS, SEED) == SamplingParams(0.7, 40, 0.9, SEED)


def test_zero_is_not_a_default() -> None:
    request = with_sampling(temperature=0, top_k=0, top_p=1, seed=0)
    assert requests.sampling(request, BOUNDS, SEED) == SamplingParams(0, 0, 1, 0)


GRANTED = [(1, None, 256), (255, None, 256), (200, 100, 100), (3, 256, 256)]


@pytest.mark.parametrize(("prompt", "asked", "granted"), GRANTED)
def test_how_many_tokens(prompt: int, asked: int | None, granted: int) -> None:
    request = with_text("a") if asked is None else with_max(asked)
    assert requests.max_tokens(request, BOUNDS, prompt) == granted


@pytest.mark.parametrize("prompt", [256, 257, 10**6])
def test_a_prompt_that_leaves_no_room(prompt: int) -> None:
    with pytest.raises(PromptTooLong, match=f"^the prompt has {prompt} tokens; .* can have 256, so at most 255"):
        requests.max_tokens(with_text("a"), BOUNDS, prompt)


def test_a_prompt_without_a_token() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        requests.max_tokens(with_ids(), BOUNDS, 0)


@pytest.mark.parametrize("value", ["a", "A9._:-z", "x" * LIMITS.id_length])
def test_ids(value: str) -> None:
    requests.check_id("session_id", value)


@pytest.mark.parametrize("value", ["", "x" * (LIMITS.id_length + 1), "a b", "a\n", "a/b", "ä", "a\0", "../x", "a*"])
def test_ids_that_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^request_id must be 1 to 128 characters"):
        requests.check_id("request_id", value)


@pytest.mark.parametrize("check_text", [requests.check_text])
def test_a_text_alone(check_text: Callable[[str], None]) -> None:
    check_text("x" * LIMITS.prompt_bytes)
    with pytest.raises(PromptTooLong):
        check_text("x" * (LIMITS.prompt_bytes + 1))


def test_content_is_the_same_for_the_same_request() -> None:
    bare = pb.GenerateRequest(text="a", max_tokens=3)
    sent = pb.GenerateRequest(text="a", max_tokens=3, session_id="s", request_id="r", resume_index=2)
    seeded = pb.GenerateRequest(text="a", max_tokens=3, sampling=pb.Sampling(seed=5))
    assert requests.content(sent) == requests.content(seeded) == requests.content(bare)
    assert sent.session_id == "s"  # left as it was


@pytest.mark.parametrize(
    "other",
    [
        pb.GenerateRequest(text="b", max_tokens=3),
        pb.GenerateRequest(token_ids=pb.TokenIds(ids=[97]), max_tokens=3),
        pb.GenerateRequest(text="a", max_tokens=4),
        pb.GenerateRequest(text="a"),
        pb.GenerateRequest(text="a", max_tokens=3, stop=["x"]),
        pb.GenerateRequest(text="a", max_tokens=3, ignore_eos=False),
        pb.GenerateRequest(text="a", max_tokens=3, priority=0),
        pb.GenerateRequest(text="a", max_tokens=3, sampling=pb.Sampling(temperature=0)),
    ],
    ids=str,
)
def test_content_tells_requests_apart(other: pb.GenerateRequest) -> None:
    assert requests.content(other) != requests.content(pb.GenerateRequest(text="a", max_tokens=3))
