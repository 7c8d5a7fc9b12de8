#!/usr/bin/env bash
# Runs our matcher, gjson's validity scan and event-ruler on the same events and
# rules, one after the other, and prints the README's table as Markdown. It needs
# Go, a JDK and Maven, takes some minutes, and wants a machine that is idle.
# event-ruler may take COMPARE_BUILD CPU-seconds (600) to take in the rules.
set -euo pipefail
cd "$(dirname "$0")/../../.."
SLUICE_COMPARE=1 go test -count=1 -timeout 120m -v -run '^TestCompareWithEventRuler$' ./rules | tee /dev/stderr | sed -n 's/^ *\(|.*|\)$/\1/p'
