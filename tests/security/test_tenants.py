"""Tenants see nothing of each other: sessions, requests, listings, and what is cached (CVE-2025-46570, CVE-2025-25183:
a prefix cache that reveals other tenants' prompts by timing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.security.keyed_server import keyed_server

from trireme import AsyncClient, errors
from trireme_coordinator.scheduler import PageKeys
from trireme_coordinator.scheduler.fair import Shares
from trireme_coordinator.scheduler.prefix import PrefixTree
from trireme_coordinator.store.tenants import scoped, shown, tag
from trireme_worker.pack import Pack

PROMPT = [0, *range(300, 364)]
GREEDY = {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}
Use = Callable[[AsyncClient, str], Awaitable[object]]
USES: dict[str, Use] = {
    "get": lambda client, id_: client.sessions.get(id_),
    "get with tokens": lambda client, id_: client.sessions.get(id_, include_tokens=True),
    "fork": lambda client, id_: client.sessions.fork(id_),
    "rewind": lambda client, id_: client.sessions.rewind(id_, 1),
    "export": lambda client, id_: client.sessions.export(id_),
    "continue": lambda client, id_: client.generate([301], session=id_, **GREEDY).result(),
    "delete": lambda client, id_: client.sessions.delete(id_),
}


async def test_a_session_of_another_tenant_is_not_there_and_says_so_in_the_same_words(
    pack: Pack, tmp_path: Path
) -> None:
    async with keyed_server(pack, tmp_path) as server:
        acme, blue = server.clients["acme"], server.clients["blue"]
        own = (await acme.generate(PROMPT, **GREEDY).result()).session_id
        for name, use in USES.items():
            said = []
            for session_id in (own, scoped("acme", own), "0" * 32, f"{tag('acme')}.{'0' * 32}"):
                with pytest.raises(errors.SessionNotFound) as caught:
                    await use(blue, session_id)
                said.append(caught.value.message)
            assert len(set(said)) == 1, name
        for use in USES.values():
            await use(acme, own)


async def test_a_session_in_use_is_not_there_for_others_either(pack: Pack, tmp_path: Path) -> None:
    """SessionBusy would say that there is one."""
    async with keyed_server(pack, tmp_path) as server:
        acme, blue = server.clients["acme"], server.clients["blue"]
        async with acme.generate(PROMPT, max_tokens=200, temperature=0.0, ignore_eos=True) as stream:
            await anext(aiter(stream))
            own = stream.session_id
            assert own
            with pytest.raises(errors.SessionBusy):
                await acme.sessions.delete(own)
            for use in USES.values():
                with pytest.raises(errors.SessionNotFound):
                    await use(blue, own)


async def test_a_listing_has_ones_own_sessions_alone(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path) as server:
        made = {tenant: [(await client.sessions.create()).session_id] for tenant, client in server.clients.items()}
        for tenant, client in server.clients.items():
            archive = await client.sessions.export(made[tenant][0])
            made[tenant].append((await client.sessions.import_(archive)).session_id)
            made[tenant].append((await client.sessions.fork(made[tenant][0])).session_id)
        for tenant, client in server.clients.items():
            listed = [session.session_id async for session in client.sessions.list()]
            assert sorted(listed) == sorted(made[tenant])
            assert all("." not in session_id for session_id in listed)


async def test_the_same_request_id_of_two_tenants_is_two_requests(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path) as server:
        request_id = "r" * 40
        first = await server.clients["acme"].generate(PROMPT, request_id=request_id, seed=1, **GREEDY).result()
        other = await server.clients["blue"].generate([0, 7], request_id=request_id, seed=1, **GREEDY).result()
        again = await server.clients["acme"].generate(PROMPT, request_id=request_id, seed=1, **GREEDY).result()
        assert other.session_id != first.session_id
        assert (again.session_id, again.token_ids) == (first.session_id, first.token_ids)


async def test_a_tenant_hits_its_own_prefix_and_misses_anothers(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path) as server:
        acme, blue = server.clients["acme"], server.clients["blue"]

        async def cached(client: AsyncClient) -> int:
            return (await client.generate(PROMPT, **GREEDY).result()).usage.cached_tokens

        assert await cached(acme) == 0
        assert await cached(blue) == 0, "another tenant's prefix was used"
        assert await cached(acme) >= 48
        assert await cached(blue) >= 48


async def test_at_once_too(pack: Pack, tmp_path: Path) -> None:
    async with keyed_server(pack, tmp_path) as server:
        long = {"max_tokens": 60, "temperature": 0.0, "ignore_eos": True}
        asked = [client.generate(PROMPT, **long).result() for client in server.clients.values()]
        answers = await asyncio.gather(*asked)
        assert [answer.usage.cached_tokens for answer in answers] == [0, 0]
        assert answers[0].token_ids == answers[1].token_ids


def test_pages_in_the_store_have_other_keys_for_another_tenant_and_another_deployment() -> None:
    def keys(tenant: str, secret: bytes) -> list[bytes]:
        made: list[bytes] = []
        PageKeys(secret).extend(made, tag(tenant), list(range(64)), 4)
        return made

    assert keys("acme", b"s") == keys("acme", b"s")
    for other in (keys("blue", b"s"), keys("default", b"s"), keys("acme", b"t")):
        assert not set(keys("acme", b"s")) & set(other)


def test_names_cannot_meet() -> None:
    tenants = ["default", "acme", "blue", "", tag("acme"), "acme.", "a" * 64]
    names = {scoped(tenant, session_id) for tenant in tenants for session_id in ("a", "b", "0" * 32)}
    assert len(names) == 3 * len(tenants)
    assert shown(scoped("acme", "abc")) == "abc"
    for session_id in ("x.y", f"{tag('acme')}.a", ".", "a/b", "", "a" * 129):
        for tenant in ("default", "acme"):
            with pytest.raises(errors.SessionNotFound):
                scoped(tenant, session_id)


def test_a_hundred_thousand_tenants_leave_nothing_behind() -> None:
    shares, tree = Shares(), PrefixTree()
    for n in range(100_000):
        tenant = tag(f"tenant-{n}")
        shares.enter(tenant)
        shares.charge(tenant, 1)
        shares.chosen(tenant)
        tree.add(0, tenant, range(32), 2)
        tree.remove(0)
    assert len(shares._served) <= 2048
    assert tree._roots == {}
