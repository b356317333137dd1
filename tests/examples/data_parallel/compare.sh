# Two processes against one with two parts; a stop, and a restart with another number.
. "$(dirname "$0")/../program.sh"

launch="$(dirname "$0")/../../../examples/data_parallel/launch.cmake"
train() {  # processes, then arguments
  processes=$1
  shift
  cmake -D "PROGRAM=$program" -D "PROCESSES=$processes" -P "$launch" -- \
    --train-size 192 --test-size 100 --epochs 2 "$@" >"$work/said" 2>&1
}

train 2 --batch 48 --compare || fail "code $?: $(cat "$work/said")"
for words in 'Largest difference of a weight: 0$' '2 processes, 1 part(s) each' '1 process, 2 parts'; do
  grep -q "$words" "$work/said" || fail "no '$words' in: $(cat "$work/said")"
done

# Six shares of each batch throughout: BatchNorm normalizes over a share.
together="--batch 48 --perturb together --method zsharp"
weights() { sed -n 's/.*sum of |w| //p' "$work/said"; }
train 2 $together --parts 3 --checkpoint "$work/whole.pt" || fail "code $?: $(cat "$work/said")"
whole=$(weights)
train 2 $together --parts 3 --checkpoint "$work/parts.pt" --stop-after 5 || fail "code $?: $(cat "$work/said")"
train 3 $together --parts 2 --checkpoint "$work/parts.pt" || fail "code $?: $(cat "$work/said")"
grep -q 'Resuming after step 5' "$work/said" || fail "the restart begins anew: $(cat "$work/said")"
[ -n "$whole" ] && [ "$(weights)" = "$whole" ] || fail "a restart with three leads elsewhere: $whole, $(cat "$work/said")"

train 2 --batch 47 && fail "a batch of 47 for two processes was taken"
grep -q 'choose a multiple of 2' "$work/said" || fail "another message: $(cat "$work/said")"
