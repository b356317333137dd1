# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

cd "$work"
refuses_in_one_line 'does not exist' --quick --data "$work/nowhere"
refuses_in_one_line 'there is no class 10' --quick --classes 0,10
refuses_in_one_line 'two different ones' --quick --classes 3,3
echo 'a file' >"$work/file"
refuses_in_one_line 'cannot write into' --quick --out "$work/file/out"
refuses 'under 2, where SAM diverges' --eta 2
