#!/usr/bin/env bash
# All ports over one pool of models: 8082 standard, 8083 streaming.
exec "$(dirname "$0")/serve" "$@"
