#!/bin/sh
# Makes what compose.yaml needs and nobody else may read: passwords in .env, a pepper in secrets/peppers. Never twice:
# without its pepper no token works any more.
set -eu
cd "$(dirname "$0")"
umask 077
for file in .env secrets/peppers; do
    if [ -e "$file" ]; then
        echo "$file is there already, and nothing was changed" >&2
        exit 1
    fi
done
mkdir -p secrets
# Letters and digits alone: they stand in a URL.
printf 'OWNER_PASSWORD=%s\nSERVICE_PASSWORD=%s\n' "$(openssl rand -hex 24)" "$(openssl rand -hex 24)" > .env
printf 'k1:%s\n' "$(openssl rand -base64 32)" > secrets/peppers
# The container's user reads it; the folder lets nobody else in.
if [ "$(id -u)" = 0 ]; then chown 10001:10001 secrets/peppers; else chmod 0444 secrets/peppers; fi
echo "made .env and secrets/peppers: keep a copy of secrets/peppers where backups of the database are not"
