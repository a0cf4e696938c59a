#!/usr/bin/env bash
# The consensus server alone, on 8084: several experts, one answer.
exec "$(dirname "$0")/serve" --only consensus "$@"
