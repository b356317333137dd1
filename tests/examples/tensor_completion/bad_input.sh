# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

cd "$work"
refuses_in_one_line "cannot open $work/none.npy" --quick --data "$work/none.npy"
echo 'no tensor' >"$work/foreign.npy"
refuses_in_one_line 'is not a .npy file' --quick --data "$work/foreign.npy"
refuses_in_one_line 'rank of mode 2 must be from 1 to its size 6, not 7' --quick --rank 8,7,8
refuses_in_one_line '2 ranks for a tensor of 3 modes' --quick --rank 8,6
refuses_in_one_line 'none is left to train on' --quick --masked 0.999999
echo 'a file' >"$work/file"
refuses_in_one_line 'cannot write into' --quick --out "$work/file/out"
refuses 'at least 0 and under 1' --quick --masked 1
refuses 'from 1 on' --quick --rank 0,6,8
refuses 'from 1 on' --quick --iterations 0
refuses "'adam' is listed twice" --quick --optimizers adam,sam,adam
refuses 'sgd' --quick --optimizers sgd
refuses '0 or more' --quick --rho -1
