"""The part of the contract about requests that are sent again, told to the fake server and to the real one.

Over the wire, without the client library, which does all of this by itself.
"""

import secrets
import time

import grpc
import pytest

from trireme_proto import errors
from trireme_proto.status import from_grpc
from trireme_proto.v1 import inference_pb2 as pb
from trireme_proto.v1.inference_pb2_grpc import InferenceStub

LENGTH = 12


def ask(**fields):
    fields = {"text": "Once upon a time", "max_tokens": LENGTH, "ignore_eos": True} | fields
    return pb.GenerateRequest(sampling=pb.Sampling(temperature=0.9, seed=5), **fields)


class ResumeContract:
    """A request is generated once, however often it is sent."""

    @pytest.fixture
    def stub(self, target):
        with grpc.insecure_channel(target) as channel:
            yield InferenceStub(channel)

    def hear(self, stub, request):
        """All messages of a call. Raises its typed error."""
        try:
            return list(stub.Generate(request, timeout=60))
        except grpc.RpcError as error:
            raise from_grpc(error) from None

    def once_free(self, stub, request, within=60.0):
        """The same, once the end of an earlier call is known to the server."""
        ends = time.monotonic() + within
        while True:
            try:
                return self.hear(stub, request)
            except errors.SessionBusy:
                assert time.monotonic() < ends

    def sent_again(self, first, **fields):
        return ask(session_id=first.session_id, request_id=first.request_id, **fields)

    @pytest.mark.parametrize("index", [0, 1, LENGTH // 2, LENGTH - 1, LENGTH])
    def test_a_complete_answer_comes_again_from_any_index(self, stub, index):
        first, *whole = self.hear(stub, ask())
        again, *rest = self.hear(stub, self.sent_again(first, resume_index=index))
        assert (again.index, again.session_id, again.request_id) == (index, first.session_id, first.request_id)
        assert again.seed == first.seed
        tokens = [token for message in whole for token in message.token_ids]
        assert [token for message in rest for token in message.token_ids] == tokens[index:]
        assert "".join(m.text for m in whole).endswith("".join(m.text for m in rest))
        assert (rest[-1].finish_reason, rest[-1].usage) == (whole[-1].finish_reason, whole[-1].usage)

    @pytest.mark.parametrize("cut", [0, 1, 7])
    def test_an_interrupted_answer_goes_on(self, stub, cut):
        _, *whole = self.hear(stub, ask())
        call = stub.Generate(ask(), timeout=60)
        first, tokens, text = next(call), [], ""
        while len(tokens) < cut:
            message = next(call)
            tokens, text = [*tokens, *message.token_ids], text + message.text
        call.cancel()
        _, *rest = self.once_free(stub, self.sent_again(first, resume_index=len(tokens)))
        assert tokens + [t for m in rest for t in m.token_ids] == [t for m in whole for t in m.token_ids]
        assert text + "".join(m.text for m in rest) == "".join(m.text for m in whole)
        assert rest[-1].usage.completion_tokens == LENGTH
        assert rest[-1].usage.prompt_tokens == whole[-1].usage.prompt_tokens

    def test_without_an_index_it_comes_from_the_beginning(self, stub):
        first, *whole = self.hear(stub, ask(request_id="r"))
        again, *rest = self.hear(stub, self.sent_again(first))
        assert again.index == 0
        assert [t for m in rest for t in m.token_ids] == [t for m in whole for t in m.token_ids]

    def test_a_unique_id_finds_its_session(self, stub):
        unique, label = secrets.token_hex(16), secrets.token_hex(15)
        first, *whole = self.hear(stub, ask(request_id=unique))
        again, *rest = self.hear(stub, ask(request_id=unique))
        assert again.session_id == first.session_id
        assert [t for m in rest for t in m.token_ids] == [t for m in whole for t in m.token_ids]
        labelled = [self.hear(stub, ask(request_id=label))[0].session_id for _ in range(2)]
        assert labelled[0] != labelled[1]

    def test_other_content_and_another_seed_are_refused(self, stub):
        first, *_ = self.hear(stub, ask())
        other_seed = self.sent_again(first)
        other_seed.sampling.seed = 6
        for request in (self.sent_again(first, text="Twice"), self.sent_again(first, max_tokens=3), other_seed):
            with pytest.raises(errors.RequestConflict):
                self.hear(stub, request)
        no_seed = self.sent_again(first)
        no_seed.sampling.ClearField("seed")
        assert self.hear(stub, no_seed)[0].seed == 5

    def test_what_cannot_be_resumed(self, stub):
        first, *_ = self.hear(stub, ask())
        for request, error in (
            (self.sent_again(first, resume_index=LENGTH + 1), errors.InvalidRequest),
            (ask(session_id=first.session_id, request_id="other", resume_index=0), errors.RequestNotFound),
            (ask(session_id="nobody", request_id="r", resume_index=0), errors.SessionNotFound),
            (ask(request_id="r", resume_index=0), errors.RequestNotFound),
            (ask(request_id=secrets.token_hex(16), resume_index=0), errors.SessionNotFound),
        ):
            with pytest.raises(error):
                self.hear(stub, request)

    def test_the_session_has_the_request_once(self, stub):
        first, *_ = self.hear(stub, ask())
        for index in (0, 3, LENGTH):
            self.hear(stub, self.sent_again(first, resume_index=index))
        *_, last = self.hear(stub, ask(text=" and", session_id=first.session_id))
        alone = self.hear(stub, ask())[-1].usage.prompt_tokens
        more = last.usage.prompt_tokens - alone - LENGTH
        assert 1 <= more <= len(" and")
