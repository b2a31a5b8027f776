#!/bin/sh
# Make or refresh a virtual environment: ensure_venv.sh DIRECTORY REQUIREMENTS...
# Does nothing when the requirements have not changed since the last time.
set -eu
dir=$1; shift
stamp="$dir/.requirements-$(echo "$*" | sha256sum | cut -c1-12)"
want=$(cat "$0" requirements/*.txt | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "edgeai.fleet needs Python 3.11 or newer on the controller; $python is $("$python" -V). Set PYTHON=... to another." >&2; exit 2; }
if [ ! -x "$dir/bin/pip" ]; then
  # Debian and Ubuntu ship python3 without ensurepip: python3-venv brings it.
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    root=""; [ "$(id -u)" = 0 ] || root="sudo -n"
    echo "== Installing python3-venv (this Python has no ensurepip)"
    { $root apt-get update -qq && $root apt-get install -y -qq python3-venv >/dev/null; } || {
      echo "Could not install python3-venv. Run: apt-get install python3-venv" >&2; exit 2; }
  fi
  echo "== Making $dir"
  "$python" -m venv "$dir"
fi
args=""
for file in "$@"; do args="$args -r $file"; done
echo "== Installing $*"
# shellcheck disable=SC2086
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check $args
echo "$want" > "$stamp"
