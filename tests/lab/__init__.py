"""A lab of real Linux machines on one host: podman containers that boot systemd and sshd. See README.md."""
