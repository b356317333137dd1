# What cannot work ends with one clear line and a code other than 0.
. "$(dirname "$0")/../program.sh"

refuses 'name a checkpoint'
refuses 'there is no checkpoint' "$work/none.pt"
echo 'something else' >"$work/foreign.pt"
refuses 'is not a checkpoint of steppe-cifar' "$work/foreign.pt"
refuses 'is not a checkpoint of steppe-cifar' "$work"
refuses 'does not exist' --quick --data "$work/nowhere"
refuses 'cannot write into' --quick --out "$work/foreign.pt/out"
refuses 'must be a number over 0' --quick --rho 0
