#!/usr/bin/env bash
# ansible-test sanity over a copy of the checkout, because it insists on a path ending in ansible_collections/NS/NAME.
#
# ansible-test bootstraps pip in its virtual environments with a script it downloads. Where only a package index can be
# reached that download fails, so its cache is filled with a script that installs the same pip from the index.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
cache=${HOME:?}/.ansible/test/cache
pip_version=24.2
if [ ! -e "$cache/get_pip_24_2.py" ]; then
  mkdir -p "$cache"
  "$bin/pip" download --quiet --no-deps --dest "$cache" "pip==$pip_version"
  cat > "$cache/get_pip_24_2.py" <<'EOF'
import os
import sys

wheel = os.path.join(os.path.expanduser("~"), ".ansible", "test", "cache", "pip-24.2-py3-none-any.whl")
sys.path.insert(0, wheel)
from pip._internal.cli.main import main

arguments = [name for name in sys.argv[1:] if name not in ("--no-setuptools", "--no-wheel")]
sys.exit(main(["install", *arguments, wheel]))
EOF
fi
copy=build/sanity/ansible_collections/edgeai/fleet
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - --ignore-failed-read 2>/dev/null | tar --extract --directory "$copy"
cd "$copy"
git init --quiet .
git add --all .
PATH="$bin:$PATH" "$bin/ansible-test" sanity --venv --python "$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" --color no "$@"
