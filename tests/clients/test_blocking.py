"""What is the blocking client's own: threads, and leaving a stream early."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trireme import Client, errors
from trireme_proto.v1 import inference_pb2 as inference


@pytest.fixture
def client(server):
    with Client(server.target, timeout=20) as connected:
        yield connected


def test_leaving_the_block_early_cancels(client, server):
    server.hold_next(after=1)
    with client.generate("x") as stream:
        next(stream)
    assert server.calls[0].wait_ended()
    assert server.calls[0].outcome == "cancelled"


def test_an_error_in_the_block_cancels_and_passes_through(client, server):
    server.hold_next(after=1)
    stream = client.generate("x")
    next(stream)
    with pytest.raises(ZeroDivisionError), stream:
        _ = 1 / 0
    assert server.calls[0].wait_ended()


def test_a_stream_dropped_without_a_block_is_cancelled(client, server):
    server.hold_next(after=1)
    for _ in client.generate("x"):
        break
    assert server.calls[0].wait_ended()
    assert server.calls[0].outcome == "cancelled"


def test_cancelling_from_another_thread(client, server):
    server.hold_next(after=1)
    stream = client.generate("x")
    next(stream)
    threading.Timer(0.05, stream.cancel).start()
    with pytest.raises(errors.Cancelled):
        stream.result()
    assert server.calls[0].wait_ended()


def test_cancelling_while_waiting_to_try_again(client, server):
    server.fail_next(errors.Overloaded("Full.", retry_after=15))
    stream = client.generate("x")

    def cancel_once_refused():
        server.wait_call().wait_ended()
        stream.cancel()

    with ThreadPoolExecutor(1) as other:
        other.submit(cancel_once_refused)
        with pytest.raises(errors.Cancelled):
            stream.result()
    assert len(server.calls) == 1


def test_a_stream_with_a_gap_is_cancelled_on_the_server(client, server):
    server.answer_next(inference.GenerateResponse(index=1, token_ids=[5]), hold=True)
    stream = client.generate("x")
    with pytest.raises(errors.Internal):
        next(stream)
    assert server.calls[0].wait_ended()


def test_one_client_serves_many_threads(client):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.generate(f"{n % 4}", seed=1, max_tokens=20).result(), range(16)))
    assert [answer.token_ids for answer in answers[:4]] * 4 == [answer.token_ids for answer in answers]


def test_closing_the_client_cancels_its_streams(server):
    server.hold_next(after=1)
    client = Client(server.target)
    stream = client.generate("x")
    next(stream)
    client.close()
    with pytest.raises(errors.Cancelled):
        stream.result()
    assert server.calls[0].wait_ended()


def test_the_head_is_known_after_the_first_message(client, server):
    server.hold_next(after=1)
    with client.generate("x", seed=9, request_id="mine") as stream:
        assert (stream.session_id, stream.request_id, stream.trace_id, stream.seed) == (None, None, None, None)
        next(stream)
        assert (stream.request_id, stream.seed, stream.finish_reason, stream.usage) == ("mine", 9, None, None)
