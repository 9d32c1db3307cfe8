#!/usr/bin/env bash
# check.sh runs what must pass before a change goes in, the same on a laptop and
# in CI.
#
#   ./check.sh            everything
#   ./check.sh STEP...    only these: format vet staticcheck tidy fuzz test
#
# The tests run with the race detector, which needs a C compiler, against SQLite,
# PostgreSQL, MySQL and MariaDB, which need Docker or servers named in
# HOLDFAST_TEST_POSTGRES, HOLDFAST_TEST_MYSQL and HOLDFAST_TEST_MARIADB; one walks
# the demo with Chromium. What is missing is skipped, and what was skipped is
# listed at the end, with the reason.
#
#   HOLDFAST_REQUIRE_DB=1        a test without its database fails; set if CI=true
#   HOLDFAST_REQUIRE_BROWSER=1   a test without Chromium fails
#   HOLDFAST_TEST_COMPOSE=1      docker-compose is tested too, some minutes
#   HOLDFAST_TEST_FAULTS=1       all faults are injected, and not only the most frequent ones, some minutes
#   HOLDFAST_TEST_CLUSTERS=1     Galera and a failover that loses commits are tested too
#   HOLDFAST_TEST_CHAOS=10m      middleware's TestChaos takes as long, and not 3 s
#   FUZZ_RUNS=100000             how often each fuzz target runs, some seconds; 0 for not at all
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit

all=(format vet staticcheck tidy fuzz test)
if [ "${CI:-}" = true ]; then
	export HOLDFAST_REQUIRE_DB=1
fi

# The modules, the library's last, so that the output ends with its tests.
modules=()
while read -r file; do
	modules+=("$(dirname "$file")")
done < <(find . -mindepth 2 -name go.mod -not -path '*/testdata/*' | sort; echo ./go.mod)

# Those of them that hold packages.
packages=()
for module in "${modules[@]}"; do
	[ -z "$(find "$module" -name '*.go' -print -quit)" ] || packages+=("$module")
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step_format() {
	local unformatted
	unformatted=$(gofmt -l .) || return
	[ -z "$unformatted" ] || { printf 'run gofmt -w on:\n%s\n' "$unformatted"; return 1; }
}

step_vet() {
	local module status=0
	for module in "${packages[@]}"; do
		go -C "$module" vet ./... || status=1
	done
	return "$status"
}

step_staticcheck() {
	local module status=0
	go -C internal/lint build -o "$work/staticcheck" honnef.co/go/tools/cmd/staticcheck || return
	for module in "${packages[@]}"; do
		(cd "$module" && "$work/staticcheck" ./...) || status=1
	done
	return "$status"
}

step_tidy() {
	local module status=0
	for module in "${modules[@]}"; do
		go -C "$module" mod tidy -diff || { echo "run: go -C $module mod tidy"; status=1; }
	done
	return "$status"
}

# The budget is a number of runs, because a duration makes the fuzzing engine of
# Go 1.26 now and then take its own deadline for a failure (golang.org/issue/75804).
step_fuzz() {
	local runs=${FUZZ_RUNS:-100000} file name status=0
	[ "$runs" != 0 ] || return 0
	while IFS=: read -r file name; do
		name=${name#func }
		if go -C "$(dirname "$file")" test -run='^$' -fuzz="^$name\$" -fuzztime="${runs}x" -timeout=10m . >"$work/fuzz" 2>&1; then
			tail -n 1 "$work/fuzz" | sed "s,$, $name,"
		else
			cat "$work/fuzz"
			status=1
		fi
	done < <(grep -roE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | sort)
	return "$status"
}

step_test() {
	if [ "$(go env CGO_ENABLED)" != 1 ]; then
		echo 'the race detector needs a C compiler: install gcc, or set CGO_ENABLED=1'
		return 1
	fi
	go build -o "$work/testreport" ./internal/testreport || return
	# Two packages at a time: each starts its own database servers.
	(
		status=0
		for module in "${packages[@]}"; do
			go -C "$module" test -json -race -count=1 -p 2 -timeout 20m ./... || status=1
		done
		exit "$status"
	) | "$work/testreport"
}

steps=("$@")
[ $# -gt 0 ] || steps=("${all[@]}")
for step in "${steps[@]}"; do
	declare -F "step_$step" >/dev/null || { echo "check.sh: no step $step; there are: ${all[*]}" >&2; exit 2; }
done

failed=()
for step in "${steps[@]}"; do
	echo "== $step"
	"step_$step" || failed+=("$step")
done
[ ${#failed[@]} -eq 0 ] && exit
echo "== FAILED: ${failed[*]}"
exit 1
