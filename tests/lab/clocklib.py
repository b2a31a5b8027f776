# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""A shared library of three functions, written byte by byte, so that the lab needs no compiler.

clock_gettime (of CLOCK_REALTIME and CLOCK_REALTIME_COARSE), gettimeofday and time answer with the kernel's time plus a
constant. Nothing else is touched: durations, sleeps, timers and file times stay true. libfaketime, which lies about all
of them, makes Python's sleep last for decades and systemd's tools hang.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FUNCTIONS = ("clock_gettime", "gettimeofday", "time")
PAGE = 0x10000  # the largest page of both architectures
CODE_AT = 64 + 4 * 56  # behind the ELF header and four program headers
PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT = 4, 5, 6, 10, 11
READ, WRITE, EXECUTE = 4, 2, 1


@dataclass(frozen=True)
class Machine:
    """One architecture's ELF number, its code and where its functions begin. The code ends with the constant."""

    elf: int
    code: bytes
    starts: tuple[int, int, int]


AMD64 = Machine(
    62,
    bytes.fromhex(
        # clock_gettime: the system call; an error is -1; clocks 0 and 5 get the constant added
        "b8e4000000 0f05 4885c0 7814 85ff 7405 83ff05 750a 488b0d4c000000 48010e c3 b8ffffffff c3"
        # gettimeofday: the system call; where there is an answer it gets the constant added
        "b860000000 0f05 4885ff 740a 488b0d2f000000 48010f c3"
        # time: clock_gettime(0) into the stack, plus the constant; stored where the argument says
        "4989f8 4883ec18 31ff 4889e6 b8e4000000 0f05 488b0424 4883c418 48030509000000 4d85c0 7403 498900 c3"
        "0000000000000000"
    ),
    (0x00, 0x26, 0x3D),
)
ARM64 = Machine(
    183,
    bytes.fromhex(
        # clock_gettime
        "e903002a 280e80d2 010000d4 2001f8b7 69000034 3f150071 a1000054 aa030058 2b0040f9 6b010a8b 2b0000f9 c0035fd6"
        "00008012 c0035fd6"
        # gettimeofday
        "e90300aa 281580d2 010000d4 a90000b4 4a020058 2b0140f9 6b010a8b 2b0100f9 c0035fd6"
        # time
        "e90300aa ff4300d1 00008052 e1030091 280e80d2 010000d4 e00741f8 ca000058 00000a8b 490000b4 200100f9 c0035fd6"
        "1f2003d5 0000000000000000"
    ),
    (0x00, 0x38, 0x5C),
)
MACHINES = {"amd64": AMD64, "arm64": ARM64}


def constant_at(arch: str) -> int:
    """Where in the file the constant is: eight bytes, signed seconds."""
    return CODE_AT + len(MACHINES[arch].code) - 8


def library(arch: str) -> bytes:
    """The shared object for ``amd64`` or ``arm64``, with a constant of 0."""
    machine = MACHINES[arch]
    names = b"\0" + b"".join(name.encode() + b"\0" for name in FUNCTIONS)
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, start in zip(FUNCTIONS, machine.starts):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        symbols += struct.pack("<IBBHQQ", at, 0x12, 0, 1, CODE_AT + start, 8)  # a global function
    hashes = struct.pack("<7I", 1, 4, 1, 0, 2, 3, 0)  # one bucket: symbol 1, then 2, then 3
    symbols_at = CODE_AT + len(machine.code)
    hashes_at = symbols_at + len(symbols)
    names_at = hashes_at + len(hashes)
    table_at = (names_at + len(names) + 7) // 8 * 8
    entries = ((DT_HASH, hashes_at), (DT_STRTAB, names_at), (DT_SYMTAB, symbols_at), (DT_STRSZ, len(names)))
    table = b"".join(struct.pack("<QQ", *entry) for entry in (*entries, (DT_SYMENT, 24), (0, 0)))
    body = (machine.code + symbols + hashes + names).ljust(table_at - CODE_AT, b"\0") + table
    return _headers(machine, table_at, len(table)) + body


def _headers(machine: Machine, table_at: int, table_size: int) -> bytes:
    """ELF and program headers: code, the dynamic table (in a page of its own: it is written to), no code on stacks.

    Nothing is mapped both writable and executable: services may forbid that.
    """
    magic = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = magic + struct.pack("<HHIQQQIHHHHHH", 3, machine.elf, 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0)
    address = table_at + PAGE
    code = struct.pack("<IIQQQQQQ", PT_LOAD, READ | EXECUTE, 0, 0, 0, table_at, table_at, PAGE)
    table = (table_at, address, address, table_size, table_size)
    data = struct.pack("<IIQQQQQQ", PT_LOAD, READ | WRITE, *table, PAGE)
    dynamic = struct.pack("<IIQQQQQQ", PT_DYNAMIC, READ | WRITE, *table, 8)
    stack = struct.pack("<IIQQQQQQ", PT_GNU_STACK, READ | WRITE, 0, 0, 0, 0, 0, 16)
    return header + code + data + dynamic + stack
