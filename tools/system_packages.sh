#!/usr/bin/env bash
# Programs that the tests run beside Python's packages. Root on Debian or Ubuntu gets them installed; anyone else is told.
set -euo pipefail
declare -A package=(
  [ssh]=openssh-client             # devices of the lab
  [qemu-x86_64-static]=qemu-user-static  # an emulated processor without int8 dot products
  [podman]=podman                  # images of the model server, releases as images, the lab
  [containerd]=containerd          # a release as an image volume
  [skopeo]=skopeo                  # a release through registries' tools
  [promtool]=prometheus            # gates, alert rules and dashboards against a real Prometheus
)
missing=()
for program in "${!package[@]}"; do command -v "$program" >/dev/null || missing+=("${package[$program]}"); done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}. Install them (Debian, Ubuntu: apt-get install ${missing[*]}), or run this as root." >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The server itself is started by the tests, on ports of their own.
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
