# A quick run ends with code 0, both tables and every file.
. "$(dirname "$0")/../program.sh"

"$program" --threads 1 --quick --out "$work/out" >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"
for words in 'condition .* holds' 'SAM.s risk is lower at k = 1 to' 'standard errors' 'test error' 'top eigenvalue' 'index.html'; do
  grep -q "$words" "$work/said" || fail "no '$words' in: $(cat "$work/said")"
done
for name in kernel_curves kernel_differences network_curves; do
  grep -q '^<svg ' "$work/out/$name.svg" || fail "$name.svg is none"
  [ "$(wc -l <"$work/out/$name.csv")" -gt 10 ] || fail "$name.csv is short"
  grep -q "$name.csv" "$work/out/index.html" || fail "$name is not on the page"
done
