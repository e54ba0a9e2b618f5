"""The fake server keeps the contract of the public API."""

import pytest
from tests.clients.contract import Contract

from trireme import Client, errors


class TestFakeServer(Contract):
    @pytest.fixture
    def target(self, server):
        return server.target

    def test_one_request_at_a_time_on_a_session(self, server, target):
        with Client(target, retries=0) as client:
            session = client.sessions.create().session_id
            server.hold_next(after=1)
            with client.generate("a", session=session) as running:
                next(running)
                with pytest.raises(errors.SessionBusy):
                    client.generate("b", session=session).result()
                with pytest.raises(errors.SessionBusy):
                    client.sessions.delete(session)
                with pytest.raises(errors.SessionBusy):
                    client.sessions.rewind(session, 0)
                assert client.status().load.running == 1
