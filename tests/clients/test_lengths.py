"""What a client remembers of its sessions' lengths is bounded, and the sessions used last stay."""

from trireme._lengths import SessionLengths


def test_the_sessions_used_last_are_known():
    lengths = SessionLengths(most=2)
    for session, tokens in (("a", 3), ("b", 5), ("a", 7), ("c", 9)):
        lengths.note(session, tokens)
    assert [lengths.get(session) for session in "abc"] == [7, None, 9]


def test_a_session_that_was_made_shorter_is_forgotten():
    lengths = SessionLengths()
    lengths.note("a", 3)
    lengths.forget("a")
    lengths.forget("never seen")
    assert lengths.get("a") is None
