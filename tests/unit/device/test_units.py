"""Decisions about systemd units, over what systemd 252 showed and journald kept on a Debian 12."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeai.fleet.plugins.module_utils.device import units
from ansible_collections.edgeai.fleet.plugins.module_utils.device.errors import DeviceError
from ansible_collections.edgeai.fleet.plugins.module_utils.device.units import Step, Wanted, classify, decide

TEXT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
ABSENT = (
    "Type= RemainAfterExit=no MainPID=0 StatusText= Result=success NRestarts=0 ExecMainStartTimestampMonotonic=0 "
    "ExecMainCode=0 ExecMainStatus=0 LoadState=not-found ActiveState=inactive SubState=dead UnitFileState= "
    "NeedDaemonReload=no"
)
RUNS = (
    "Type=notify RemainAfterExit=no MainPID=473 StatusText= Result=success NRestarts=0 "
    "ExecMainStartTimestampMonotonic=12825854544 ExecMainCode=0 ExecMainStatus=0 LoadState=loaded ActiveState=active "
    "SubState=running UnitFileState=enabled NeedDaemonReload=no"
)
RAN_ONCE = (
    "Type=oneshot RemainAfterExit=no MainPID=0 StatusText= Result=success NRestarts=0 "
    "ExecMainStartTimestampMonotonic=12831032432 ExecMainCode=1 ExecMainStatus=0 LoadState=loaded ActiveState=inactive "
    "SubState=dead UnitFileState=enabled NeedDaemonReload=no"
)
FAILED = (
    "Type=notify RemainAfterExit=no MainPID=0 StatusText= Result=exit-code NRestarts=0 "
    "ExecMainStartTimestampMonotonic=12799536304 ExecMainCode=1 ExecMainStatus=1 LoadState=loaded ActiveState=failed "
    "SubState=failed UnitFileState=enabled NeedDaemonReload=no"
)
ENDED = [
    "edgeai-x.service: Main process exited, code=exited, status=1/FAILURE",
    "Failed to start edgeai-x.service - x.",
]


def show(recorded: str, **changes: str) -> dict[str, str]:
    shown = units.parse_show("\n".join(recorded.split(" ")) + "\nVendor=unknown\nno property\n")
    assert set(changes) <= set(shown)
    return {**shown, **changes}


def wanted(**changes: Any) -> Wanted:
    return Wanted(TEXT, True, True, False)._replace(**changes)


@pytest.mark.parametrize(
    ("current", "shown", "asked", "step"),
    [
        (None, show(ABSENT), wanted(), Step(True, True, "enable", "start")),
        (TEXT, show(RUNS), wanted(), Step(False, False, "", "")),
        ("old", show(RUNS), wanted(), Step(True, True, "", "restart")),
        (TEXT, show(RUNS), wanted(restart=True), Step(False, False, "", "restart")),
        # the run that wrote the file was interrupted before it told systemd
        (TEXT, show(RUNS, NeedDaemonReload="yes"), wanted(), Step(False, True, "", "restart")),
        (TEXT, show(FAILED), wanted(), Step(False, False, "", "start")),
        (
            TEXT,
            show(FAILED, ActiveState="activating", SubState="auto-restart"),
            wanted(),
            Step(False, False, "", "start"),
        ),
        (TEXT, show(RUNS), wanted(enabled=False), Step(False, False, "disable", "")),
        (TEXT, show(RUNS, UnitFileState="disabled"), wanted(), Step(False, False, "enable", "")),
        ("[Service]\n", show(RUNS, UnitFileState="static"), wanted(content="[Service]\n"), Step(False, False, "", "")),
        (None, show(ABSENT), wanted(started=False), Step(True, True, "enable", "")),
        ("old", show(RUNS), wanted(started=False), Step(True, True, "", "restart")),
        (None, show(ABSENT), wanted(restart=True), Step(True, True, "enable", "start")),
        (TEXT, show(RAN_ONCE), wanted(), Step(False, False, "", "")),
        ("old", show(RAN_ONCE), wanted(), Step(True, True, "", "start")),
        (TEXT, show(RAN_ONCE, Result="exit-code", ActiveState="failed"), wanted(), Step(False, False, "", "start")),
        (TEXT, show(RAN_ONCE, ExecMainStartTimestampMonotonic="0"), wanted(), Step(False, False, "", "start")),
    ],
)
def test_what_is_to_be_done(current: str | None, shown: dict[str, str], asked: Wanted, step: Step) -> None:
    assert decide(current, shown, asked) == step
    assert step.changed is (step != Step(False, False, "", ""))


def test_a_masked_unit_is_refused() -> None:
    with pytest.raises(DeviceError, match="unmask"):
        decide(None, show(ABSENT, LoadState="masked"), wanted())


@pytest.mark.parametrize(
    ("shown", "journal", "cause"),
    [
        (show(FAILED, ExecMainStatus="217"), ENDED, "user"),
        (show(FAILED, ExecMainStatus="203"), ENDED, "exec"),
        (
            show(FAILED, ExecMainStatus="226"),
            ["edgeai-x.service: Failed to set up mount namespacing: /run/x: No such file or directory"],
            "namespace",
        ),
        (show(FAILED), ["OSError: [Errno 98] Address already in use", *ENDED], "port_in_use"),
        (show(FAILED), ["OSError: [Errno 28] No space left on device: '/var/lib'", *ENDED], "disk_full"),
        (show(FAILED), ["ModuleNotFoundError: No module named 'uvicorn'", *ENDED], "missing_module"),
        (show(FAILED), ["PermissionError: [Errno 13] Permission denied: 'run'", *ENDED], "permission"),
        (show(FAILED), ["OSError: [Errno 99] Cannot assign requested address", *ENDED], "address"),
        (show(FAILED), ENDED, "exit"),
        (show(FAILED, Result="timeout", ExecMainCode="2", ExecMainStatus="15"), [], "timeout"),
        (show(FAILED, Result="watchdog", ExecMainCode="3", ExecMainStatus="6"), [], "watchdog"),
        (show(FAILED, Result="oom-kill", ExecMainCode="2", ExecMainStatus="9"), ENDED, "memory"),
        (show(FAILED, Result="signal", ExecMainCode="2", ExecMainStatus="11"), [], "crash"),
        (show(FAILED, Result="start-limit-hit", ExecMainStatus="3"), [], "crash_loop"),
        (show(RUNS, ActiveState="activating", SubState="start"), ["no end after 10 s"], "timeout"),
        (show(RUNS, NRestarts="1"), ["edgeai-x.service: Failed with result 'exit-code'."], "crash_loop"),
        (show(RUNS, NRestarts="1"), ["OSError: [Errno 98] Address already in use"], "port_in_use"),
        (show(ABSENT, LoadState="bad-setting"), [], "unit_file"),
        (show(ABSENT, LoadState="loaded"), [], "unknown"),
    ],
)
def test_why_it_does_not_run(shown: dict[str, str], journal: list[str], cause: str) -> None:
    named = classify(shown, journal)
    assert named.name == cause and named.fix
    message = units.explain("edgeai-x.service", named, journal)
    assert message.startswith(f"edgeai-x.service does not run: {cause} (")
    assert all(line in message for line in journal)


def test_a_run_that_was_replaced_has_not_settled() -> None:
    assert units.settled(show(RUNS), show(RUNS, StatusText="busy"))
    assert not units.settled(show(RUNS), show(RUNS, MainPID="474", NRestarts="1"))
    assert not units.settled(show(RUNS), show(RUNS, ActiveState="failed"))


VERIFY = """/tmp/v/edgeai-x.service:3: Unknown key 'ProtectMoon' in section [Service], ignoring.
/tmp/v/edgeai-x.service:4: Failed to parse sec value, ignoring: maybe
/tmp/v/edgeai-x.service:5: Unknown section 'Unti'. Ignoring.
/lib/systemd/system/other.service:9: Failed to parse something of somebody else
edgeai-x.service: Command /nope/x is not executable: No such file or directory
Unit edgeai-y.socket not found.
"""


def test_findings_of_systemd_about_the_file() -> None:
    errors, warnings = units.sort_findings("edgeai-x.service", VERIFY, fresh=False)
    assert errors == [
        "line 4: Failed to parse sec value, ignoring: maybe",
        "Command /nope/x is not executable: No such file or directory",
    ]
    assert [words.split(":")[0] for words in warnings] == ["line 3", "line 5"]
    # Before anything is installed the program cannot be there.
    errors, warnings = units.sort_findings("edgeai-x.service", VERIFY, fresh=True)
    assert errors == ["line 4: Failed to parse sec value, ignoring: maybe"] and len(warnings) == 3
    refused = "edgeai-x.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.\n"
    assert len(units.sort_findings("edgeai-x.service", refused, fresh=True)[0]) == 1


@pytest.mark.parametrize(
    "name", ["edgeai-server", "../x.service", "a b.service", "x.service\n", "", "x.service;id", "-x.service"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(DeviceError, match=r"edgeai-server\.service"):
        units.check_name(name)


@pytest.mark.parametrize("name", ["edgeai-server.service", "x@1.timer", "a.socket"])
def test_names(name: str) -> None:
    assert units.check_name(name) == name
