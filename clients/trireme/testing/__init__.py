"""A Trireme server in memory, for tests of applications: the public API without a model.

>>> from trireme import Client
>>> from trireme.errors import Overloaded
>>> from trireme.testing import FakeServer
>>> with FakeServer() as server, Client(server.target) as client:
...     print(client.generate("Hello", max_tokens=5).result().finish_reason)
...     server.fail_next(Overloaded("The queue is full.", retry_after=0.01))
...     print(client.generate("Hello", max_tokens=5).result().finish_reason)
length
length
"""

from trireme.testing.model import FakeModel
from trireme.testing.script import FakeCall
from trireme.testing.server import FakeServer

__all__ = ["FakeCall", "FakeModel", "FakeServer"]
