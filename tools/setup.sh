# Sourced by tools/test and tools/quickstart: messages, and installing what is missing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
started_at=$SECONDS

step() {
    printf '\n== %s  [%d s]\n' "$*" $((SECONDS - started_at))
}

note() {
    printf '   %s\n' "$*"
}

# What went wrong, then what to do about it.
fail() {
    printf '\nFAILED: %s\n' "$1" >&2
    shift
    for line in "$@"; do
        printf '        %s\n' "$line" >&2
    done
    exit 1
}

# Debian package names: DESIGN.md, section 6.
packages_build="build-essential cmake ninja-build pkg-config libuv1-dev liblmdb-dev libxxhash-dev
    libmsgpack-dev libsimdjson-dev node-llhttp libcurl4-openssl-dev libssl-dev libyaml-dev"
packages_run="python3"
packages_test="libcmocka-dev mandoc openssl python3 python3-venv clang clang-format clang-tidy cppcheck
    libclang-rt-14-dev git systemd"

is_installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# install_packages PACKAGE...: installs those that are missing, and only those.
install_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        note "this is no Debian: please see to it that these are installed: $*"
        return 0
    fi
    local missing=() package
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        note "all packages are there"
        return 0
    fi
    note "installing: ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "packages are missing, and there is neither root nor sudo" \
            "Run this as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        fail "the packages could not be installed (see above)" \
            "Check the network and /etc/apt/sources.list, then run again, or install by hand:" \
            "apt-get install ${missing[*]}"
    fi
    rm -f "$log"
}

# unpack_package PACKAGE FILE FOLDER: a package's FILE in FOLDER; for packages that start a service when installed.
unpack_package() {
    [ ! -e "$3/$2" ] || return 0
    command -v apt-get >/dev/null || return 0 # Tests look for it in PATH, too.
    local place
    place=$(mktemp -d)
    chmod 755 "$place"
    if (cd "$place" && { apt-get download "$1" || { apt-get update && apt-get download "$1"; }; } &&
        dpkg-deb -x ./*.deb unpacked) >"$place/log" 2>&1 &&
        mkdir -p "$(dirname "$3/$2")" && cp "$place/unpacked/$2" "$3/$2"; then
        rm -rf "$place"
        return 0
    fi
    tail -n 5 "$place/log" >&2
    rm -rf "$place"
    return 1
}
