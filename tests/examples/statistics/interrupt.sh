# Ctrl-C in the middle ends with what there is, and code 130.
. "$(dirname "$0")/../program.sh"

"$program" --threads 1 --n 200 --iterations 1000000 --designs 1 --sigmas 0.5 --draws 2000 --only kernel --out "$work/out" >"$work/said" 2>&1 &
process=$!
while [ ! -d "$work/out" ]; do
  kill -0 "$process" 2>/dev/null || fail "it ended too early: $(cat "$work/said")"
  sleep 0.1
done
sleep 3
kill -INT "$process"
code=0
wait "$process" || code=$?
[ "$code" -eq 130 ] || fail "code $code: $(cat "$work/said")"
grep -q 'Interrupted' "$work/said" || fail "no word of it: $(cat "$work/said")"
grep -q '^<svg ' "$work/out/kernel_curves.svg" || fail "no picture of what there is"
