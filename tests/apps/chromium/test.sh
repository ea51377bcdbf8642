# Headless Chromium: a page with a canvas, script and a worker as a picture and as text, the same as under runc. Its own
# sandbox is off (`--no-sandbox`), as everywhere in Docker; on, it finds none of its kinds, as under runc.
. "$(dirname "$0")/../lib.sh"

# chromium RUNTIME OPTIONS...: with /out to write to, by a user that is not root.
chromium() {
    local runtime=$1
    shift
    mkdir -p "$WORK/out" && chmod 777 "$WORK/out"
    docker run --rm --init --runtime "$runtime" --label "sallet-app=$TAG" --user 1000 -e HOME=/tmp -v "$WORK/out:/out" \
        "$IMAGE" timeout 100 chromium --headless --disable-gpu --window-size=800,600 --virtual-time-budget=2000 "$@" file:///page/page.html
}
picture() { chromium "$1" --no-sandbox "--screenshot=/out/$1.png" >"$WORK/log" 2>&1; }
# Width and height of a PNG file.
dimensions() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }'; }

takes_pictures() {
    must picture runc
    must picture "$RUNTIME"
    equal '800 600' "$(dimensions "$WORK/out/$RUNTIME.png")"
    equal "$(stat -c %s "$WORK/out/runc.png")" "$(stat -c %s "$WORK/out/$RUNTIME.png")"
}

runs_scripts() {
    output=$(chromium "$RUNTIME" --no-sandbox --dump-dom 2>/dev/null)
    contains "$output" '<title>42</title>'
    contains "$output" '<p id="text">1 4 9</p>'
}

own_sandbox() {
    output=$(chromium "$RUNTIME" --dump-dom 2>&1)
    contains "$output" 'No usable sandbox'
}

case $1 in
    check)
        run_test takes_pictures
        run_test runs_scripts
        run_test own_sandbox
        ;;
    measure)
        measure picture "$(seconds picture "$RUNTIME")" s
        ;;
esac
