# Shorthands for check.sh, which says what each needs and does.

.PHONY: check test

check: # all of it: what CI runs
	./check.sh

test: # every test, with the race detector, on every database
	./check.sh test
