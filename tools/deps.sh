#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# deps.sh GROUP - see that all is there for GROUP: build, demo, python, bench, test or check.
#
# Idea: each line of the table is one need: how to see it, and the Debian package that brings it.
# What is missing is listed and then installed, as root or by sudo; where that cannot be, it is
# named. A group holds the groups above it, but only bench holds bench: what benchmarks compare with.
# Nothing is asked, nothing present is touched.
set -u

readonly table='
build  command  gcc                                     gcc
build  file     /usr/include/stdio.h                    libc6-dev
build  command  pkg-config                              pkg-config
build  library  libcurl                                 libcurl4-openssl-dev
build  library  zlib                                    zlib1g-dev
build  library  libpng                                  libpng-dev
demo   command  python3                                 python3
python file     /usr/include/python3*/Python.h          python3-dev
python module   ensurepip                               python3-venv
python module   setuptools                              python3-setuptools
python module   wheel                                   python3-wheel
python module   cloudpickle                             python3-cloudpickle
bench  command  g++                                     g++
bench  library  tbb                                     libtbb-dev
bench  library  glib-2.0                                libglib2.0-dev
bench  library  libuv                                   libuv1-dev
test   command  g++                                     g++
test   command  ps                                      procps
test   command  strace                                  strace
test   module   numpy                                   python3-numpy
test   module   test.test_concurrent_futures            libpython3.11-testsuite
check  command  clang                                   clang
check  clang    asan                                    libclang-rt-14-dev
check  clang    fuzzer                                  libclang-rt-14-dev
check  command  clang-tidy                              clang-tidy
check  command  clang-format                            clang-format
check  command  aarch64-linux-gnu-gcc                   gcc-aarch64-linux-gnu
check  file     /usr/aarch64-linux-gnu/include/stdio.h  libc6-dev-arm64-cross
check  command  qemu-aarch64                            qemu-user
check  command  mandoc                                  mandoc
check  module   mypy                                    python3-mypy
check  command  debootstrap                             debootstrap
check  command  spin                                    spin
'

is_there() { # how what
    case $1 in
    command) command -v "$2" ;;
    file) compgen -G "$2" ;;
    module) /usr/bin/python3 -c "import importlib.util as u; exit(not u.find_spec('$2'))" ;;
    library) pkg-config --exists "$2" ;;
    clang) compgen -G "$(clang -print-resource-dir)/lib/linux/libclang_rt.$2-*.a" ;;
    esac >/dev/null 2>&1
}

missing() { # the packages of $group and of those above it that are not there
    local of how what package seen=
    while read -r of how what package; do
        [ -n "$of" ] || continue
        [ -n "$seen" ] && [ "$of" != "$group" ] && break
        [ "$of" = "$group" ] && seen=1
        [ "$of" = bench ] && [ "$group" != bench ] && continue
        is_there "$how" "$what" || echo "$package"
    done <<<"$table"
}

refuse() {
    printf 'yoke: %s. Please install what brings these Debian packages, then try again:\n  %s\n' \
        "$1" "${packages[*]}" >&2
    exit 1
}

apt() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 "$@"
}

install_all() {
    apt install --no-install-recommends "${packages[@]}"
}

group=${1:?which group: build, demo, python, bench, test or check}
mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0

echo "yoke: not here yet: ${packages[*]}"
command -v apt-get >/dev/null || refuse 'there is no apt-get here'
root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || refuse 'this is not root, and there is no sudo'
    [ -t 0 ] && root=sudo || root='sudo -n'
fi

# The lists of packages may be missing or old: only then are they fetched.
echo "yoke: installing them with ${root:+$root }apt-get ..."
log=$(mktemp) && trap 'rm -f "$log"' EXIT
install_all >"$log" 2>&1 || { apt update && install_all; } >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    refuse 'apt-get did not do it'
}
mapfile -t packages < <(missing)
[ ${#packages[@]} -eq 0 ] || refuse 'something is still not there'
