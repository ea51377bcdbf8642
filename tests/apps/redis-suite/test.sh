# Redis' own tests, all units, under runc and inside, compared test by test. `differences` tells which may differ.
. "$(dirname "$0")/../lib.sh"

# What a quick run takes: a unit of each kind.
SOME="unit/type/list unit/expire unit/multi unit/pubsub unit/scripting unit/dump unit/other integration/rdb integration/aof"

# suite RUNTIME OPTIONS...: in a container of its own.
suite() {
    local runtime=$1
    shift
    docker run --rm --init --runtime "$runtime" --label "sallet-app=$TAG" --shm-size 256m "$IMAGE" ./runtest "$@" 2>&1 |
        sed 's/\x1b\[[0-9;]*m//g; s/\r//g'
}
# passed LOG: the names of the tests that passed. Numbers in them differ from run to run.
passed() { sed -nE 's/^\[ok\]: (.*) \([0-9]+ ms\)$/\1/p' "$1" | sed -E 's/[0-9]+(\.[0-9]+)?/N/g' | LC_ALL=C sort -u; }
# done_units LOG
done_units() { sed -nE 's/^\[[0-9]+\/[0-9]+ done\]: ([^ ]+) .*/\1/p' "$1" | LC_ALL=C sort -u; }

# singles UNITS...: the options that name them.
singles() { printf -- '--single %s ' "$@"; }

own_tests() {
    local runtime unit options='--clients 3'
    [ "$QUICK" = 1 ] && options="$options $(singles $SOME)"
    for runtime in runc "$RUNTIME"; do
        suite "$runtime" $options >"$WORK/$runtime.log"
        cp "$WORK/$runtime.log" "${KEEP:-$WORK}/$runtime.first.log" 2>/dev/null
        passed "$WORK/$runtime.log" >"$WORK/$runtime.passed"
        done_units "$WORK/$runtime.log" >"$WORK/$runtime.units"
    done
    at_least 5 "$(wc -l <"$WORK/runc.units")"
    # The machine may be too busy for what failed once: again, unit by unit, under runc too if it fell short there.
    for unit in $(units_of "$WORK/runc.log" "$options"); do
        for runtime in runc "$RUNTIME"; do
            again "$runtime" "$unit" || again "$runtime" "$unit" || true
        done
    done
    echo "note $(wc -l <"$WORK/runc.units") units, $(wc -l <"$WORK/runc.passed") tests pass under runc; $(wc -l <"$WORK/$RUNTIME.units"), $(wc -l <"$WORK/$RUNTIME.passed") inside" >&3
    LC_ALL=C comm -23 "$WORK/runc.units" "$WORK/$RUNTIME.units" | sed 's/^/unit /' >"$WORK/wrong"
    LC_ALL=C comm -23 "$WORK/runc.passed" "$WORK/$RUNTIME.passed" | sed 's/^/test /' >>"$WORK/wrong"
    # Whole lines of the list up to its first tab.
    cut -f1 "$HERE/differences" | grep -v '^#' >"$WORK/expected"
    wrong=$(grep -vxF -f "$WORK/expected" "$WORK/wrong")
    [ -z "$wrong" ] || {
        echo "$wrong"
        grep -hE -A3 '^\[(err|exception)\]' "$WORK/$RUNTIME.log" "$WORK"/"$RUNTIME".*.again 2>/dev/null | tail -40
        exit 1
    }
}
# units_of LOG OPTIONS: all units that were asked for.
units_of() {
    if [ "$QUICK" = 1 ]; then printf '%s\n' $SOME; return; fi
    docker run --rm --label "sallet-app=$TAG" "$IMAGE" ./runtest --list-tests
}
# again RUNTIME UNIT: where a test of the unit failed or it came to no end; what passes now counts.
again() {
    local runtime=$1 unit=$2 log
    if [ "$runtime" = runc ]; then grep -qxF "$unit" "$WORK/runc.units" && return; fi
    if grep -qxF "$unit" "$WORK/$runtime.units"; then
        # Its tests are not told apart by unit in the log: only where something is still missing.
        [ -z "$(LC_ALL=C comm -23 "$WORK/runc.passed" "$WORK/$runtime.passed")" ] && return
        grep -qE "^\[err\].* in tests/$unit\.tcl|in $unit" "$WORK/$runtime.log" || return 0
    fi
    log=$WORK/$runtime.${unit//\//-}.again
    suite "$runtime" --single "$unit" >"$log"
    { cat "$WORK/$runtime.passed"; passed "$log"; } | LC_ALL=C sort -u -o "$WORK/$runtime.passed.new" && mv "$WORK/$runtime.passed.new" "$WORK/$runtime.passed"
    { cat "$WORK/$runtime.units"; done_units "$log"; } | LC_ALL=C sort -u -o "$WORK/$runtime.units.new" && mv "$WORK/$runtime.units.new" "$WORK/$runtime.units"
    grep -q 'All tests passed without errors' "$log"
}

case $1 in
    check)
        if [ "$RUNTIME" = runc ]; then
            skip all 'runc is what the other is compared with'
            exit
        fi
        exec 3>&1
        run_test own_tests
        ;;
    measure)
        start shell "$IMAGE" sleep 1000
        units() { inside shell ./runtest --clients 1 $(singles unit/type/hash unit/type/set unit/scan unit/bitfield); }
        measure four-units "$(seconds units)" s
        ;;
esac
