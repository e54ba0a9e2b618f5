"""nodes.yaml: every mistake is one sentence that says where."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_coordinator.nodes_file import check_machines, parse_nodes, read_nodes, write_nodes
from trireme_coordinator.placement import Machine
from trireme_proto.errors import ConfigurationError
from trireme_proto.limits import LIMITS

GOOD = "name: a, ram_gb: 8, read_gb_s: 20.5, int8_gmac_s: 500"


def one(fields: str) -> bytes:
    return f"nodes: [{{{fields}}}]".encode()


def test_a_file_with_and_without_what_may_be_left_out() -> None:
    text = f"nodes:\n- {{{GOOD}}}\n- {{{GOOD.replace('a,', 'b,')}, cores: 4, rtt_ms: 0, link_gbit_s: 2.5}}\n"
    assert parse_nodes(text.encode()) == (
        Machine("a", 8, 20.5, 500),
        Machine("b", 8, 20.5, 500, cores=4, rtt_ms=0, link_gbit_s=2.5),
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The nodes file must have a key 'nodes' with a list of nodes."),
        (b"[1]", "The nodes file must have a key 'nodes' with a list of nodes."),
        (b"nodes: []", "There are 0 nodes; a plan is for 1 to 512."),
        (b"{}", "'nodes' in the nodes file is not a list."),
        (b"nodes: {a: 1}", "'nodes' in the nodes file is not a list."),
        (b"nodes: 7", "'nodes' in the nodes file is not a list."),
        (b"nodes: []\nnode: []", "The nodes file has the unknown key 'node'; it knows 'nodes' only."),
        (b"nodes: []\nnodes: []", "The nodes file says 'nodes' twice in one place."),
        (b"nodes: [1]", "node 1 is not a mapping of keys to values."),
        (one(GOOD + ", ram: 7"), "node 1 ('a'): 'ram' is unknown; the keys are name, ram_gb,"),
        (one(GOOD + ", 5: 7"), "node 1 ('a'): 5 is unknown"),
        (one(GOOD + ", ram_gb: 9"), "The nodes file says 'ram_gb' twice in one place."),
        (one("name: a, ram_gb: 8, read_gb_s: 20"), "node 1 ('a'): int8_gmac_s is missing."),
        (one("ram_gb: 8, read_gb_s: 20, int8_gmac_s: 5"), "node 1: name is missing."),
        (one(GOOD.replace("a,", "7,")), "node 1: name is not a text; put it in quotes."),
        (one(GOOD.replace("a,", "'',")), "node 1: name must be 1 to 128 printable characters."),
        (one(GOOD.replace("a,", '"\\e[2J",')), "node 1: name must be 1 to 128 printable characters."),
        (one(GOOD.replace("a,", "x" * 129 + ",")), "node 1: name must be 1 to 128 printable characters."),
        (one(GOOD.replace("8,", "-8,")), "node 1 ('a'): ram_gb is -8; it must be above 0, up to 1e+06."),
        (one(GOOD.replace("8,", "0,")), "node 1 ('a'): ram_gb is 0; it must be above 0, up to 1e+06."),
        (one(GOOD.replace("20.5", "1e99")), "node 1 ('a'): read_gb_s is '1e99', not a number."),
        (one(GOOD.replace("20.5", "1.0e+99")), "node 1 ('a'): read_gb_s is 1e+99; it must be above 0, up to 100000."),
        (one(GOOD.replace("20.5", "1e3")), "node 1 ('a'): read_gb_s is '1e3', not a number: write 1000 without"),
        (one(GOOD.replace("20.5", "2.5E1")), "node 1 ('a'): read_gb_s is '2.5E1', not a number: write 25 without"),
        (one(GOOD.replace("20.5", ".nan")), "node 1 ('a'): read_gb_s is nan, not a number."),
        (one(GOOD.replace("20.5", ".inf")), "node 1 ('a'): read_gb_s is inf, not a number."),
        (one(GOOD.replace("20.5", "true")), "node 1 ('a'): read_gb_s is True, not a number."),
        (one(GOOD.replace("20.5", "null")), "node 1 ('a'): read_gb_s is None, not a number."),
        (one(GOOD.replace("20.5", "fast")), "node 1 ('a'): read_gb_s is 'fast', not a number."),
        (one(GOOD.replace("20.5", "[1, 2]")), "node 1 ('a'): read_gb_s is a collection, not a number."),
        (one(GOOD.replace("20.5", "1" * 5000)), "The nodes file is not valid YAML."),
        (one(GOOD.replace("20.5", "1" * 400)), "node 1 ('a'): read_gb_s is a huge number, not a number."),
        (one(GOOD.replace("20.5", "2026-99-99")), "The nodes file is not valid YAML."),
        (one(GOOD + ", cores: 2.5"), "node 1 ('a'): cores is 2.5, not a whole number."),
        (one(GOOD + ", cores: 0"), "node 1 ('a'): cores is 0; it must be above 0, up to 65536."),
        (one(GOOD + ", rtt_ms: -1"), "node 1 ('a'): rtt_ms is -1; it must be from 0 up to 60000."),
        (f"nodes: [{{{GOOD}}}, {{{GOOD}}}]".encode(), "node 2 ('a'): another node has that name."),
        (b"nodes: [", "The nodes file is not valid YAML in line 1."),
        (b"nodes:\n\t- a", "The nodes file is not valid YAML in line 2."),
        (b"nodes: [\xff]", "The nodes file is not valid YAML."),
        (b"nodes: [\x00]", "The nodes file is not valid YAML."),
        (b"nodes: [!!python/object/apply:os.system [id]]", "The nodes file is not valid YAML in line 1."),
        (b"[" * 5000, "The nodes file is "),
        (b"nodes:\n" + b"- 1\n" * 10_000, "There are 10000 nodes; a plan is for 1 to 512."),
        (b"#" * (LIMITS.nodes_file_bytes + 1), "The nodes file is larger than 262144 bytes."),
        (b"? [a]\n: 1", "The nodes file is not valid YAML in line 1."),
        (b"nodes: []\n---\nnodes: []", "The nodes file is not valid YAML in line 2."),
    ],
)
def test_a_mistake_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(sentence)}") as caught:
        parse_nodes(data)
    assert len(str(caught.value)) < 250


def test_aliases_are_refused_before_they_grow() -> None:
    bomb = "a: &a [x]\n" + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in pairwise("abcdefghi"))
    merge = "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nnodes: []\n"
    began = time.process_time()
    for text in (bomb, merge):
        with pytest.raises(ConfigurationError, match=r"^The nodes file uses YAML aliases \(\*name\); write everything"):
            parse_nodes(text.encode())
    assert time.process_time() - began < 5


def test_a_full_file_is_read_in_seconds() -> None:
    data = write_nodes(Machine(f"node-{i}" + "x" * 100, 8.5, 20.25, 500.125, 4) for i in range(512)).encode()
    assert len(parse_nodes(data)) == 512


def test_a_file_that_is_not_there_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^The nodes file 'nodes.yaml' cannot be read: No such file"):
        read_nodes(tmp_path / "nodes.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_nodes(tmp_path)


NUMBERS = st.floats(0.001, 1e5)
NAMES = st.text(min_size=1, max_size=128).filter(str.isprintable)


@given(
    st.lists(
        st.builds(Machine, NAMES, NUMBERS, NUMBERS, NUMBERS, st.none() | st.integers(1, 4096), st.floats(0, 60_000)),
        min_size=1,
        max_size=5,
        unique_by=lambda machine: machine.name,
    )
)
def test_what_is_written_is_read_again(machines: list[Machine]) -> None:
    assert check_machines(tuple(machines)) == parse_nodes(write_nodes(machines).encode())


@given(st.binary(max_size=300) | st.text(alphabet="nodes:[]{}-, \n&*<!|>'\"%#?ab1.", max_size=300).map(str.encode))
def test_no_file_does_anything_but_be_read_or_refused(data: bytes) -> None:
    with suppress(ConfigurationError):
        parse_nodes(data)
