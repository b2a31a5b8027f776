# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License, Version 2.0 (see LICENSE)
"""lab.py's commands."""

from __future__ import annotations

import argparse
import os
import sys

from . import plan
from .api import Lab
from .errors import LabError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab.py", description="A lab of real Linux devices on this machine.")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring devices up, or repair what is up")
    up.add_argument("--devices", type=int, default=6, help="devices of this machine's architecture (default 6)")
    up.add_argument("--arm64", type=int, default=1, help="emulated arm64 devices (default 1)")
    up.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these devices, whatever the counts")
    up.add_argument("--suite", default=plan.SUITE, help=f"Debian suite of the devices (default {plan.SUITE})")
    down = commands.add_parser("down", help="remove devices, network and files")
    down.add_argument("--images", action="store_true", help="the cached images, too")
    commands.add_parser("status", help="one line a device")
    for name, words in DEVICE_COMMANDS.items():
        command = commands.add_parser(name, help=words)
        command.add_argument("device")
        if name == "fill":
            command.add_argument("--leave-mib", type=float, default=1, help="what stays free (default 1)")
        if name == "slow":
            command.add_argument("--delay", default="0", help="one way, as 100ms")
            command.add_argument("--loss", default="0", help="as 2%%")
            command.add_argument("--rate", default="0", help="as 1mbit or 256kbit")
        if name == "clock":
            command.add_argument("when", help="1970-01-01, 2031-05-01T12:00 (UTC) or now")
            command.add_argument("--no-restart", action="store_true", help="only for processes that start from now on")
        if name == "exec":
            command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="command and arguments")
    return top


DEVICE_COMMANDS = {
    "exec": "run a command as root, without the network",
    "cut": "take the network away",
    "join": "give the network back",
    "slow": "delay, lose and throttle what goes to and from the device",
    "fast": "end of slow",
    "fill": "fill the disk under /var/lib/edgeai",
    "drain": "give the space back",
    "power-cut": "kill everything at once; what was not synced is lost",
    "power-on": "start again and wait until it has booted",
    "power-off": "shut down in order",
    "restart": "shut down in order and start again",
    "repair": "end every fault",
    "remove": "remove the device, and no other",
    "clock": "boot at a wrong time from now on, or at the right one again (now)",
}


def _print_status(lab: Lab) -> None:
    columns = "{:12} {:6} {:16} {:10} {:8} {}"
    print(columns.format("device", "arch", "address", "state", "network", "free MiB"))
    for row in lab.status():
        network = "cut" if row["cut"] else "slow" if row["slow"] else "joined"
        print(
            columns.format(
                *(row[key] for key in ("name", "architecture", "address", "state")), network, row["free_mib"]
            )
        )


def _device_command(lab: Lab, options: argparse.Namespace) -> int:
    device = lab.device(options.device)
    if options.command == "exec":
        command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        argv = device.exec_argv(command or ["/bin/bash"])
        os.execvpe(argv[0], argv, device.podman.environment())
    if options.command == "remove":
        lab.remove(options.device)
    elif options.command == "fill":
        device.fill(options.leave_mib)
    elif options.command == "slow":
        device.slow(options.delay, options.loss, options.rate)
    elif options.command == "clock":
        device.set_clock(options.when, restart=not options.no_restart)
    else:
        getattr(device, options.command.replace("-", "_"))()
    return 0


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    lab = Lab()
    try:
        if options.command == "up":
            lab.up(options.devices, options.arm64, options.only, options.suite)
        elif options.command == "down":
            lab.down(options.images)
        elif options.command == "status":
            _print_status(lab)
        else:
            return _device_command(lab, options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0
