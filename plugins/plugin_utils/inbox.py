# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What actions that send files share: a directory on the device for what arrives, whoever the connection's user is."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


def make_command(home: str, inbox: str, user: str) -> str:
    """The shell command that makes an inbox for a user (empty: the one who runs it), or fails and leaves none."""
    home, inbox = shlex.quote(home), shlex.quote(inbox)
    command = f"umask 022 && mkdir -p {home} && rm -rf {inbox} && mkdir -m 0700 {inbox}"
    if user:
        command += f" && {{ chown {shlex.quote(user)} {inbox} || {{ rmdir {inbox}; false; }}; }}"
    return command


class InboxAction(ActionBase):  # type: ignore[misc]
    """Base of an action whose module takes files from an inbox."""

    @contextlib.contextmanager
    def inbox(self, home: str, name: str) -> Iterator[str]:
        """A directory on the device that only the connection's user (and root) enters, gone afterwards.

        It lies below ``home``: what arrived before the connection was cut is on the file system that needs it. One of
        the same name that a run left behind goes first. Where the become user cannot make one for the connection's
        user, it is one of Ansible's own temporary directories.
        """
        inbox, sudoable = f"{home.rstrip('/')}/.inbox-{name}", True
        user = self._get_remote_user() if self.becomes_another() else ""
        command = make_command(home, inbox, user or "")
        if user is None or self._low_level_execute_command(command, sudoable=True).get("rc", 1) != 0:
            inbox, sudoable = self._make_tmp_path(), False
        try:
            yield inbox
        finally:
            with contextlib.suppress(AnsibleConnectionFailure):
                self._low_level_execute_command(f"rm -rf {shlex.quote(inbox)}", sudoable=sudoable)

    def readable(self, home: str, inbox: str, names: Sequence[str]) -> None:
        """Let the become user read what was put into an inbox that is one of Ansible's temporary directories."""
        if self.becomes_another() and not inbox.startswith(home):
            paths = [self._connection._shell.join_path(inbox, name) for name in names]
            self._fixup_perms2([inbox, *paths], execute=False)

    def becomes_another(self) -> bool:
        """Whether the module runs as another user than the one that files arrive as."""
        become = self._connection.become
        return become is not None and self.get_become_option("become_user") not in (None, self._get_remote_user())
