"""CVE-2024-34359, CVE-2026-5760, CVE-2024-56326, CVE-2025-27516, CVE-2025-61620, CVE-2025-62426: a chat template is
code, and its arguments can keep a server busy. Here nothing renders templates: neither a request nor
a pack can bring one.
"""

from __future__ import annotations

import ast
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor

import trireme_proto.v1 as protocol
from trireme_coordinator.text import TextCodec
from trireme_worker.pack import Pack

ROOT = Path(__file__).parents[2]
PRODUCT = ("proto", "kernels", "worker", "coordinator", "clients")
ENGINES = {"jinja2", "mako", "chevron", "pystache", "django", "markupsafe"}
HOSTILE = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for a in range(10**9) %}{% endfor %}"


def test_no_template_engine_is_imported() -> None:
    files = [file for folder in PRODUCT for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & ENGINES, file


def test_no_request_has_a_field_for_a_template_or_free_arguments() -> None:
    for name in ("inference", "sessions", "cluster"):
        messages = import_module(f"{protocol.__name__}.{name}_pb2").DESCRIPTOR.message_types_by_name.values()
        for message in messages:
            _check(message)


def _check(message: Descriptor) -> None:
    for field in message.fields:
        assert not {"template", "kwargs", "tools", "extra"} & set(field.name.split("_")), field.full_name
        if field.message_type is not None:
            assert field.message_type.full_name not in {"google.protobuf.Struct", "google.protobuf.Any"}
            if field.message_type.file.package == message.file.package:
                _check(field.message_type)


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_hostile_template_beside_a_tokenizer_is_never_read(pack: Pack, tmp_path: Path, where: str) -> None:
    shutil.copy(pack.tokenizer_path(), tmp_path / "tokenizer.json")
    (tmp_path / where).write_text(HOSTILE)
    codecs = [
        TextCodec.open(file, pack.config.bos_token_id, pack.config.vocabulary)
        for file in (pack.tokenizer_path(), tmp_path / "tokenizer.json")
    ]
    texts = ("Hello", HOSTILE, "{% include '/etc/passwd' %}")
    assert [codecs[0].encode(text, True) for text in texts] == [codecs[1].encode(text, True) for text in texts]
    for text in texts:
        assert codecs[1].decode(codecs[1].encode(text, False)) == text, "a text stays a text"
