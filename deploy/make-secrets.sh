#!/bin/sh
# Makes what is secret and not there yet: .env, and the files in secrets/. What is there stays as it is.
set -eu
cd "$(dirname "$0")"

# Files are readable, because containers read them under users of their own; nobody on this machine gets to them.
install -d -m 0700 secrets
umask 022
[ -e secrets/identity.pem ] || openssl genpkey -algorithm ed25519 -out secrets/identity.pem
chmod 0644 secrets/identity.pem
[ -e secrets/grafana_password ] || openssl rand -hex 16 >secrets/grafana_password

umask 077
[ -e .env ] || sed "s|^SIDECAR_DEPLOY=\$|&$PWD|; s|^REDIS_PASSWORD=\$|&$(openssl rand -hex 32)|" .env.example >.env
