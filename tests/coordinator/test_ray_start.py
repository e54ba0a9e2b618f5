"""Ray gives a node of ours 30 s to come up, and then raises a plain Exception: its user reads one sentence."""

from __future__ import annotations

import pytest

from trireme_coordinator.ray_cluster import RayCluster
from trireme_proto.errors import StartupError

TOO_LATE = Exception("The current node timed out during startup.")


@pytest.mark.parametrize(("raised", "seen"), [(TOO_LATE, StartupError), (KeyError(), KeyError)])
def test_a_ray_that_does_not_come_up_in_time(
    raised: Exception, seen: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise raised

    monkeypatch.setattr("os.environ", {})
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(seen) as caught:
        RayCluster("", "trireme").start()
    if seen is StartupError:
        assert "30 s" in str(caught.value)
