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
        if name == "exec":
            command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="command and arguments")
    return top


DEVICE_COMMANDS = {
    "exec": "run a command as root, without the network",
    "cut": "take the network away",
    "join": "give the network back",
    "fill": "fill the disk under /var/lib/edgeai",
    "drain": "give the space back",
    "power-cut": "kill everything at once; what was not synced is lost",
    "power-on": "start again and wait until it has booted",
    "power-off": "shut down in order",
}


def _print_status(lab: Lab) -> None:
    print(f"{'device':12} {'arch':6} {'address':16} {'state':10} {'network':8} free MiB")
    for row in lab.status():
        network = "cut" if row["cut"] else "joined"
        print(
            f"{row['name']:12} {row['architecture']:6} {row['address']:16} {row['state']:10} {network:8} {row['free_mib']}"
        )


def _device_command(lab: Lab, options: argparse.Namespace) -> int:
    device = lab.device(options.device)
    if options.command == "exec":
        command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        argv = device.exec_argv(command or ["/bin/bash"])
        os.execvpe(argv[0], argv, device.podman.environment())
    if options.command == "fill":
        device.fill(options.leave_mib)
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
