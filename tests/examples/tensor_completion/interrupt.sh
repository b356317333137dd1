# Ctrl-C ends with code 130 and a page of what there is.
. "$(dirname "$0")/../program.sh"

"$program" --iterations 1000000 --optimizers adam,sam --out "$work/out" >"$work/said" 2>&1 &
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
grep -q 'interrupted' "$work/out/index.html" || fail "the page does not say so"
[ "$(wc -l <"$work/out/fit.csv")" -gt 2 ] || fail "the page has no numbers"
