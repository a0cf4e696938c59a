#!/usr/bin/env bash
# All ports over one pool of models: 8082 standard, 8083 streaming, 8084 consensus.
exec "$(dirname "$0")/serve" "$@"
