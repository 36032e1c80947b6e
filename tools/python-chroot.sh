#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# python-chroot.sh SUITE VERSION [TEST...] - the tests of Python with another Debian's python3.
#
# Idea: SUITE is put by debootstrap into build/SUITE once, with what its packages are taken from
# like those of this machine; the repository is seen in it, read-only; the extension is built and
# tested there by the Makefile. All of it happens in namespaces of its own: mounts and processes are
# gone when it ends, however it ends, so that nothing can be removed through a mount.
set -eu -o pipefail

suite=${1:?which suite of Debian, trixie for instance} version=${2:?which Python, 3.13 for instance}
shift 2
cd "$(dirname "$0")/.."
repository=$PWD root=$PWD/build/$suite
packages="gcc libc6-dev make procps strace python3 python3-dev python3-venv python3-setuptools
    python3-wheel python3-cloudpickle python3-numpy libpython$version-testsuite"

if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo 'python-chroot: error: this needs root' >&2; exit 1; }
    exec sudo -n "$0" "$suite" "$version" "$@"
fi

# Everything below runs a second time, as the first process of the namespaces.
if [ "${YOKE_CHROOT:-}" != inside ]; then
    mkdir -p build
    exec env YOKE_CHROOT=inside flock "build/$suite.lock" unshare --mount --propagation private \
        --pid --fork --kill-child "$0" "$suite" "$version" "$@"
fi

quietly() { # command...: what it says is shown only if it fails
    local log=build/$suite.log
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" && echo "python-chroot: error: $1 failed" && exit 1; }
}

in_root() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        ${http_proxy:+http_proxy="$http_proxy"} chroot "$root" "$@"
}

make_root() {
    local new=$root.new mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' |
        sed -n 's| Debian$||p' | head -n 1)
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
    echo "python-chroot: Debian $suite from ${mirror:=http://deb.debian.org/debian/} ..."
    rm -rf --one-file-system "$root" "$new"
    mkdir -p "$new"
    # What debootstrap does not know by name yet is like sid.
    local script=$suite
    [ -e "/usr/share/debootstrap/scripts/$suite" ] || script=sid
    quietly debootstrap --foreign --variant=minbase "$suite" "$new" "$mirror" "$script"
    mv "$new" "$root"
    mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
    printf '%s\n' force-unsafe-io path-exclude=/usr/share/{doc,man,locale}/'*' \
        >"$root/etc/dpkg/dpkg.cfg.d/yoke"
    quietly in_root /debootstrap/debootstrap --second-stage
    quietly in_root apt-get -qy install --no-install-recommends $packages
    in_root apt-get -q clean
    echo "$packages" >"$root/ready"
}

[ "$packages" = "$(cat "$root/ready" 2>/dev/null)" ] || make_root
has=$(in_root python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$has" = "$version" ] || { echo "python-chroot: error: $suite has Python $has, not $version"; exit 1; }

mkdir -p "$root/yoke" "$root/made"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind -o ro "$repository" "$root/yoke"
[ $# -gt 0 ] || set -- tests/python/test_*.py
in_root make -C /yoke --no-print-directory test DEPS=no BUILD=/made/build VENV=/made/venv TESTS="$*" \
    ONLY="${ONLY:-}" SLOW="${SLOW:-1}" JOBS="${JOBS:-2}"
