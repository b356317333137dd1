# Ctrl-C ends with code 130 and the page of the runs that were done by then.
. "$(dirname "$0")/../program.sh"

study="--train-size 64 --test-size 32 --epochs 3 --every 1 --images 32 --vectors 2 --points 3 --seeds 20 --out $work/out"
interrupts_at "$work/out/numbers.csv" 0.2 $study
grep -q 'Interrupted after [0-9]* of 40 runs' "$work/said" || fail "no word of how far it came: $(cat "$work/said")"
[ "$(wc -l <"$work/out/numbers.csv")" -ge 11 ] || fail "numbers.csv has $(wc -l <"$work/out/numbers.csv") lines"
