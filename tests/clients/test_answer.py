"""The bookkeeping of one answer and the decision to try again: pure, with a clock of the test's own."""

import pytest

from trireme import Usage, errors
from trireme._answer import Answer
from trireme._retry import RetryPolicy
from trireme_proto.v1 import inference_pb2 as inference


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def collected(*timed):
    """The generation of messages that come at given seconds after the call."""
    clock = Clock()
    answer = Answer(clock)
    index = 0
    for at, ids in timed:
        clock.now = 100.0 + at
        answer.take(inference.GenerateResponse(index=index, token_ids=ids))
        index += len(ids)
    usage = inference.Usage(prompt_tokens=3, completion_tokens=index, cached_tokens=1)
    clock.now += 50
    answer.take(inference.GenerateResponse(index=index, finish_reason=inference.FINISH_REASON_EOS, usage=usage))
    return answer.generation()


def test_speed_counts_from_the_first_tokens_on():
    answer = collected((1.0, []), (2.0, [1]), (2.5, [2]), (4.0, [3, 4]))
    assert answer.ttft_s == 2.0
    assert answer.tokens_per_s == pytest.approx(3 / 2.0)
    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=1)


def test_several_tokens_in_the_first_message_are_not_counted_as_fast_ones():
    assert collected((2.0, [1, 2, 3]), (3.0, [4])).tokens_per_s == pytest.approx(1.0)


def test_an_answer_in_one_message_has_the_speed_of_the_call():
    assert collected((0.5, [1, 2])).tokens_per_s == pytest.approx(4.0)


def test_an_answer_without_tokens_has_no_speed():
    answer = collected((0.5, []))
    assert (answer.ttft_s, answer.tokens_per_s, answer.text) == (None, None, "")


def test_tokens_at_the_same_instant_do_not_divide_by_zero():
    assert collected((1.0, [1]), (1.0, [2])).tokens_per_s > 0


OVERLOADED = errors.Overloaded("Full.", retry_after=2.0)


@pytest.mark.parametrize(
    ("policy", "attempt", "error", "wait"),
    [
        (RetryPolicy(2, None), 1, OVERLOADED, 2.0),
        (RetryPolicy(2, None), 2, OVERLOADED, 2.0),
        (RetryPolicy(2, None), 3, OVERLOADED, None),
        (RetryPolicy(0, None), 1, OVERLOADED, None),
        (RetryPolicy(2, 102.5), 1, OVERLOADED, 2.0),
        (RetryPolicy(2, 102.0), 1, OVERLOADED, None),
        (RetryPolicy(2, None), 1, errors.Overloaded("Full."), None),
        (RetryPolicy(2, None), 1, errors.InvalidRequest("No.", retry_after=1.0), None),
    ],
)
def test_whether_to_try_again(policy, attempt, error, wait):
    assert policy.wait_before(attempt, error, now=100.0) == wait


def test_time_left_never_falls_below_zero():
    assert RetryPolicy(2, 103.0).remaining(100.0) == 3.0
    assert RetryPolicy(2, 99.0).remaining(100.0) == 0.0
    assert RetryPolicy(2, None).remaining(100.0) is None


def test_a_lost_call_is_tried_until_its_deadline():
    """The pauses shrink before it, so that no server that comes back in time is missed."""
    policy, now, waits = RetryPolicy(0, ends=10.0, patience=60.0), 9.0, []
    while (wait := policy.wait_elsewhere(len(waits) + 8, errors.ServerUnreachable("gone"), now, 1.0)) is not None:
        waits.append(wait)
        now += wait
    assert 9.98 < now < 10.0
    assert all(0.004 < wait <= 0.5 for wait in waits)
    assert len(waits) < 10
