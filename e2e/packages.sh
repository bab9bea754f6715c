#!/usr/bin/env bash
# packages.sh: installs what the end-to-end tests use and this machine does not have yet, by Debian package name.
# Does nothing, and says so, where it is not root on a Debian with apt-get: there the tests skip what they cannot do.
set -euo pipefail

wanted=(buildah busybox-static bzip2 docker-registry gcc git libc6-dev libcap2-bin libseccomp-dev mmdebstrap openssh-client openssh-server pkg-config runc skopeo uidmap umoci util-linux xz-utils zstd)

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "packages: not root on Debian; the tests that need ${wanted[*]} skip where they are missing" >&2
  exit 0
fi
missing=()
# Debian's npm cannot stand beside a nodejs that brings its own.
command -v npm >/dev/null || missing+=(nodejs npm)
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

limit=600
export DEBIAN_FRONTEND=noninteractive
echo "packages: installing ${missing[*]} (each attempt at most ${limit}s)" >&2
# Some are servers, which the tests start themselves: none is to run on this machine, now or later, because of them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
quiet() {
  command -v systemctl >/dev/null || return 0
  local unit
  for package in "${missing[@]}"; do
    case "$package" in
      openssh-server) unit=ssh.service ;;
      docker-registry) unit=docker-registry.service ;;
      *) continue ;;
    esac
    systemctl disable --quiet "$unit" || echo "packages: $unit could not be disabled; it may start with the machine" >&2
  done
}
for attempt in 1 2 3; do
  if timeout "$limit" apt-get -q update >/dev/null && timeout "$limit" apt-get -q -y install --no-install-recommends "${missing[@]}" >/dev/null; then
    quiet
    exit 0
  fi
  echo "packages: attempt $attempt failed" >&2
  sleep $((attempt * 5))
done
echo "packages: could not install ${missing[*]}" >&2
exit 1
