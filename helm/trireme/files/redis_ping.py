"""Ends with 0 where the session store takes the password and has read its data."""

import os
import socket
import sys

try:
    with socket.create_connection(("127.0.0.1", 6379), timeout=3) as connection:
        connection.sendall(f"AUTH trireme {os.environ['REDIS_PASSWORD']}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\n") < 2 and (more := connection.recv(256)):
            answer += more
except OSError as error:
    sys.exit(f"Redis does not answer yet: {error}")
sys.exit(0 if answer == b"+OK\r\n+PONG\r\n" else "Redis does not take the password, or still reads its data.")
