#!/usr/bin/env bash
# The token-by-token streaming server alone, on 8083.
exec "$(dirname "$0")/serve" --only streaming "$@"
