"""A fork server of kernels: torch and the library are loaded and the problems solved once, and every kernel is a fork.

A kernel is there in a fraction of a second instead of several, and shares with the others all memory that it does not
write to. The warm process runs on one thread, because a fork keeps no other.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socketserver
import sys
import threading
from typing import ClassVar

from ipykernel.kernelapp import IPKernelApp

MOST = 200  # kernels at a time; a further one waits until another ends


class _Fork(socketserver.StreamRequestHandler):
    """In the fork: become the kernel that was asked for."""

    def handle(self) -> None:
        """Read what is wanted and run that kernel until it is shut down or the asking process is gone."""
        wanted = json.loads(self.rfile.readline())
        self.server.socket.close()
        os.setsid()  # an interrupt at the terminal is for the server
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        os.environ.pop("JPY_PARENT_PID", None)  # that is the asking process; the parent is the warm one
        os.chdir(wanted["folder"])
        threading.Thread(target=self._end_with_the_asking_process, daemon=True).start()
        sys.argv = ["kernel"]
        widgets = "--ext=ipywidgets"  # was imported before there was a kernel to tell of it
        quiet = [f"--IPKernelApp.parent_handle={os.getppid()}", "--log-level=ERROR"]
        IPKernelApp.launch_instance(argv=["-f", wanted["connection_file"], widgets, *quiet])

    def _end_with_the_asking_process(self) -> None:
        self.connection.recv(1)
        os._exit(0)


class KernelForks(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Forks a kernel for each connection to a socket, while ``handle_request`` is called again and again.

    Args:
        address: of the socket, a path that is not there yet.
    """

    max_children: ClassVar[int] = MOST
    request_queue_size: ClassVar[int] = MOST
    block_on_close: ClassVar[bool] = False
    timeout: ClassVar[float] = 0.5  # seconds of one call of ``handle_request``, then ended kernels are collected

    def __init__(self, address: str) -> None:
        super().__init__(address, _Fork)
        gc.collect()
        gc.freeze()  # a collection in a fork would write to what it shares
