#!/usr/bin/env bash
# packages.sh: installs the Debian packages that the cluster needs beyond those of e2e/packages.sh. The cluster is Debian's and root's only.
set -euo pipefail

"$(dirname "$0")/../packages.sh"
wanted=(iproute2 nftables procps tini)
missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "packages: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
timeout 300 apt-get -q update >/dev/null
exec timeout 300 apt-get -q -y install --no-install-recommends "${missing[@]}" >/dev/null
