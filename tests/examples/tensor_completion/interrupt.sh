# Ctrl-C ends with code 130 and a page of the results so far.
. "$(dirname "$0")/../program.sh"

interrupts_at "$work/out" 3 --iterations 1000000 --optimizers adam,sam --out "$work/out"
grep -q 'interrupted' "$work/out/index.html" || fail "the page does not say so"
[ "$(wc -l <"$work/out/fit.csv")" -gt 2 ] || fail "the page has no numbers"
