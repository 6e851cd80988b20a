"""What Jupyter starts as a kernel: it asks the warm process for a fork, and ends when the fork does.

A script of the standard library alone, so that it starts in milliseconds: python kernel.py SOCKET CONNECTION_FILE.
The kernel holds the other end of the socket; whichever process ends first, the other one sees it and ends too.
"""

import json
import os
import socket
import sys


def main(address: str, connection_file: str) -> None:
    """Ask for a kernel, and wait until it has ended.

    Args:
        address: the socket of the warm process.
        connection_file: of the kernel.
    """
    wanted = {"connection_file": connection_file, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        line.sendall(json.dumps(wanted).encode() + b"\n")
        line.recv(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
