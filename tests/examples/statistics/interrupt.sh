# Ctrl-C in the middle ends with the results so far, and code 130.
. "$(dirname "$0")/../program.sh"

interrupts_at "$work/out" 3 --n 200 --iterations 1000000 --designs 1 --sigmas 0.5 --draws 2000 --only kernel --out "$work/out"
grep -q '^<svg ' "$work/out/kernel_curves.svg" || fail "no picture of what there is"
