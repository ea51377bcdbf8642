# Runs on the host before the image is made: npm itself and, in its cache, the packages that the test installs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
cmp -s "$here/package.json" done && cmp -s "$here/prepare.sh" done.sh && exit
rm -rf npm npm-cache work && mkdir work && cd work
npm pack --silent npm@10.9.2 >/dev/null
tar -xzf npm-*.tgz && mv package ../npm
cp "$here/package.json" .
node ../npm/bin/npm-cli.js install --cache ../npm-cache --ignore-scripts --no-audit --no-fund --loglevel error
cd ..
rm -rf work npm-cache/_logs
cp "$here/prepare.sh" done.sh
cp "$here/package.json" done
