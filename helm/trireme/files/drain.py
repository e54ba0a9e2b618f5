"""Waits until nothing is under way, at most as many seconds as given: new calls go elsewhere by then."""

import sys
import time

from trireme import Client
from trireme_proto.errors import TriremeError

until = time.monotonic() + float(sys.argv[1])
time.sleep(min(3.0, float(sys.argv[1])))  # until the last proxy has taken this address from its list
try:
    with Client("127.0.0.1:50051") as client:
        while time.monotonic() < until and (load := client.status(timeout=5).load).running + load.waiting:
            time.sleep(0.5)
except TriremeError as error:
    sys.stderr.write(f"Not drained: {error}\n")
