# Thirty archives of a hundred small files and a class each, and a repository to build from.
set -e
mkdir -p /app/plugins /work && cd /work
for n in $(seq 30); do
    mkdir -p "plugin$n/resources" && cd "plugin$n"
    for f in $(seq 100); do echo "message.$f=text $f of plugin $n" >"resources/$f.properties"; done
    printf 'public class Plugin%s implements java.util.function.Supplier<String> {\n    public String get() { return "plugin %s"; }\n}\n' "$n" "$n" >"Plugin$n.java"
    cd ..
done
javac plugin*/Plugin*.java
for n in $(seq 30); do jar cf "/app/plugins/plugin$n.jar" -C "plugin$n" .; done
git init -q -b main source && cd source
git config user.email a@b && git config user.name a
for commit in 1 2 3; do
    for n in $(seq 100); do
        mkdir -p "module$((n % 10))"
        echo "line $n of commit $commit" >>"module$((n % 10))/file$n.txt"
    done
    git add -A && git commit -q -m "commit $commit"
done
git clone -q --bare . /repository
rm -rf /work
