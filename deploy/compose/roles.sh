#!/bin/sh
# Runs once, when the database is made: the role that serves. `authz migrate --service-role authz` gives it its rights.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$SERVICE_PASSWORD" <<'SQL'
create role authz login nosuperuser nocreatedb nocreaterole noreplication password :'password';
SQL
