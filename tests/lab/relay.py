# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""A slow cable: a process that carries frames between two network links late, few at a time, and not all of them.

It needs nothing from the kernel but packet sockets, so that it works where tc's netem is missing.
Run as ``python3 relay.py LINK LINK DELAY LOSS RATE`` (seconds, share, bytes a second; 0: no limit).
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import heapq
import random
import selectors
import socket
import struct
import sys
import time

QUEUE = 1000  # frames a direction may hold, as netem's limit
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
FRAME = 65536
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
GONE = (errno.ENODEV, errno.ENXIO)


class Direction:
    """One way through the cable: when does a frame that comes now leave? Pure but for the dice."""

    def __init__(self, delay: float, loss: float, rate: float, dice: random.Random) -> None:
        self.delay, self.loss, self.rate, self.dice = delay, loss, rate, dice
        self.free_at = 0.0  # when the frame before has been sent off
        self.waiting = 0

    def due(self, now: float, size: int) -> float | None:
        """The moment the frame comes out at the other end; None when it is lost."""
        if self.waiting >= QUEUE or self.dice.random() < self.loss:
            return None
        start = max(now, self.free_at)
        self.free_at = start + (size / self.rate if self.rate else 0.0)
        self.waiting += 1
        return self.free_at + self.delay

    def left(self) -> None:
        self.waiting -= 1


class Relay:
    """Two packet sockets and the frames in flight."""

    def __init__(self, ends: list[socket.socket], delay: float, loss: float, rate: float) -> None:
        self.ends = ends
        self.ways = [Direction(delay, loss, rate, random.Random(seed)) for seed in (1, 2)]
        self.flying: list[tuple[float, int, int, bytes]] = []
        self.count = 0

    def receive(self, end: int) -> None:
        """Take every frame that waits at one end."""
        while True:
            try:
                frame, address = self.ends[end].recvfrom(FRAME)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in GONE:
                    raise
                return  # ENETDOWN: the cable is out; it may come back
            if address[2] == PACKET_OUTGOING:
                continue
            due = self.ways[end].due(time.monotonic(), len(frame))
            if due is not None:
                self.count += 1
                heapq.heappush(self.flying, (due, self.count, end, frame))

    def deliver(self) -> None:
        """Hand over what is due."""
        now = time.monotonic()
        while self.flying and self.flying[0][0] <= now:
            _due, _count, end, frame = heapq.heappop(self.flying)
            self.ways[end].left()
            with contextlib.suppress(BlockingIOError):
                try:
                    self.ends[1 - end].send(frame)
                except OSError as error:
                    if error.errno in GONE:
                        raise

    def run(self) -> None:
        """Carry until a link is removed."""
        selector = selectors.DefaultSelector()
        for number, end in enumerate(self.ends):
            selector.register(end, selectors.EVENT_READ, number)
        while True:
            timeout = max(0.0, self.flying[0][0] - time.monotonic()) if self.flying else 1.0
            for key, _events in selector.select(timeout):
                self.receive(key.data)
            self.deliver()
            for end in self.ends:
                socket.if_nametoindex(end.getsockname()[0])


def open_link(name: str) -> socket.socket:
    """A packet socket on one link. Raises OSError when there is none of that name."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    end.bind((name, 0))
    end.setblocking(False)
    return end


def whole_checksums(name: str) -> None:
    """Let the link's sender compute checksums and cut segments itself: frames are read here as if from a wire."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
        fcntl.ioctl(control, SIOCETHTOOL, request)


def main(argv: list[str]) -> int:
    if argv[0] == "whole-checksums":
        whole_checksums(argv[1])
        return 0
    ends = [open_link(name) for name in argv[:2]]
    print("ready", flush=True)
    with contextlib.suppress(OSError):
        Relay(ends, *(float(text) for text in argv[2:5])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
