"""Stands for `trireme serve` in tests: python stub_server.py PID_FILE [MODE]. Prints what the real one prints."""
# ruff: noqa: T201 - printing is what it is for

import os
import signal
import subprocess
import sys
from pathlib import Path

from trireme.testing import FakeServer


def main(pid_file, mode="good"):
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) if mode == "stubborn" else None
    Path(pid_file).write_text(" ".join(str(pid) for pid in (os.getpid(), child and child.pid) if pid))
    print("Starting 2 workers", file=sys.stderr, flush=True)
    if mode == "fails":
        print("error: The port 1 is in use.", file=sys.stderr)
        return 3
    if mode == "silent":
        signal.pause()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the server's threads too: sigwait gets it
    with FakeServer() as server:
        if mode == "held":
            server.hold_next(after=4)
        print("\n" * 200_000)  # more than a pipe holds
        print(f"Trireme is ready on {server.target} (model fake, 2 stages)")
        signal.sigwait({signal.SIGHUP if mode == "stubborn" else signal.SIGTERM})
    print("Stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
